"""Whether what was made from a tensor is still good."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ReferenceType, ref

import torch

Stamp = tuple[int, int]
"""Where a tensor's memory lies and how often torch wrote to it: another stamp, another content."""


def stamp_of(tensor: torch.Tensor) -> Stamp:
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:  # a tensor of the inference mode, which counts no writes
        return tensor.data_ptr(), 0


class LaidOut:
    """Weights in another layout, made at their first use and again when they were written to; it lives as long as the
    weights do."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[ReferenceType[torch.Tensor], Stamp, dict[str, torch.Tensor]]] = {}

    def of(self, weight: torch.Tensor, make: Callable[[], torch.Tensor], name: str = "") -> torch.Tensor:
        """What `make()` makes of the weight; a weight may have several layouts, by name."""
        key, stamp = id(weight), stamp_of(weight)
        held = self._held.get(key)
        if held is None or held[0]() is not weight or held[1] != stamp:
            held = self._held[key] = ref(weight, lambda _: self._held.pop(key, None)), stamp, {}
        if name not in held[2]:
            held[2][name] = make()
        return held[2][name]

    def __len__(self) -> int:
        return len(self._held)
