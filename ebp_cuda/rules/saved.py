"""What the forward of one layer leaves to the sweeps over it, and what these leave to each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..linear import LinearMap


@dataclass(frozen=True)
class Gate:
    """The quotient y / z of a layer's output behind its ReLU and its normalizer, from the forward that had both.

    Relevance that comes down as a multiple of y, `p = s * y`, is divided by z with it: `p / z = s * (y / z)`.
    """

    y: torch.Tensor
    """[N, O, ...]."""
    ratio: torch.Tensor
    """y / z, and 0 where z is 0, [N, O, ...]."""
    compute_normalizer: Callable[[], torch.Tensor]

    @cached_property
    def normalizer(self) -> torch.Tensor:
        """z itself, for relevance that is no multiple of y."""
        return self.compute_normalizer()


class Saved(dict[str, Any]):
    """What belongs to one layer and one forward pass.

    The attributes are those of the operations of graph.py. The dictionary is for operations of your own
    (`register_operation`), under any key.
    """

    def __init__(self, *, overwrite: bool = False, linear: LinearMap | None = None) -> None:
        super().__init__()
        self.overwrite = overwrite
        """Given to the forward: whether it may write over its first input."""
        self.linear = linear
        """Given to the forward: the layer's linear map, if it is one."""
        self.winners: tuple[torch.Tensor, ...] = ()
        """Which inputs a maximum took: codes of the op, or indices; of a volume codes along depth, then within slices.
        For `unpool`, the indices in the output's planes that its inputs went to."""
        self.normalizers: dict[Hashable, torch.Tensor | Gate] = {}
        """By linear map: z, or the gate y / z. For all sweeps over this forward, until weights are written to."""

    def __bool__(self) -> bool:
        return True

    def tensors(self) -> Iterator[torch.Tensor]:
        """Everything here that takes memory."""
        for value in (*self.winners, *self.normalizers.values(), *self.values()):
            if isinstance(value, Gate):
                yield value.ratio
            elif isinstance(value, torch.Tensor):
                yield value
