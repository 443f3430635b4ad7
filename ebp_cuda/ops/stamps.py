"""Whether what was made from a tensor is still good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

Stamp = tuple[int, int]
"""Where a tensor's memory lies and how often torch wrote to it: another stamp, another content."""


def stamp_of(tensor: torch.Tensor) -> Stamp:
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:  # a tensor of the inference mode, which counts no writes
        return tensor.data_ptr(), 0


class LaidOut:
    """A second form of weights, made at a weight's first use and again when it was written to; it lives as long as
    the weight does."""

    def __init__(self) -> None:
        self._held: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def of(self, weight: torch.Tensor, make: Callable[[], Any]) -> torch.Tensor:
        """What `make()` makes of it."""
        stamp = stamp_of(weight)
        held: tuple[Stamp, torch.Tensor] | None = self._held.get(weight)
        if held is None or held[0] != stamp:
            held = self._held[weight] = stamp, make()
        return held[1]

    def __len__(self) -> int:
        return len(self._held)
