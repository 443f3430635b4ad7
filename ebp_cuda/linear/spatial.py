"""Spatial axes of a layer, as the ops take them: they know planes, and a single axis is a plane of width 1.

Three axes stay as they are: volume.py makes them planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UnsupportedError
from ..graph import Node

RANKS = (1, 2, 3)
"""Numbers of spatial axes that layers may have."""


@dataclass(frozen=True)
class Spatial:
    """Puts tensors [N, C, *size] and settings per spatial axis on planes, and results back."""

    rank: int

    @classmethod
    def of(cls, node: Node, layer: str, t: torch.Tensor) -> Spatial:
        """For a tensor [N, C, *size] or weights [O, I, *kernel]; UnsupportedError names the node and kind of layer."""
        rank = t.dim() - 2
        if rank not in RANKS:
            raise UnsupportedError(f"layer '{node.name}': {layer} with {rank} spatial axes, wanted 1, 2 or 3")
        return cls(rank)

    def plane(self, t: torch.Tensor) -> torch.Tensor:
        return t.unsqueeze(-1) if self.rank == 1 else t

    def back(self, t: torch.Tensor) -> torch.Tensor:
        """A plane of the layer's output or input, in the layer's own number of axes."""
        return t.squeeze(-1) if self.rank == 1 else t

    def settings(self, values: Sequence[int], fill: int) -> list[int]:
        """One number per spatial axis, as one per axis of a plane; `fill` leaves the width of 1 alone."""
        return [*values, fill] if self.rank == 1 else list(values)
