"""Weights as a product reads them: signed parts and layouts, made once and again when the weights were written to."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar
from weakref import ReferenceType, ref

import torch

T = TypeVar("T")

Stamp = tuple[int, int]
"""The address of a tensor's memory and how often torch wrote to it: another stamp, another content."""


def stamp_of(tensor: torch.Tensor) -> Stamp:
    """The present stamp of a tensor."""
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:  # a tensor of the inference mode, which counts no writes
        return tensor.data_ptr(), 0


class LayoutCache:
    """What was made of weights, by name. It lives as long as the weights do, and is made again after a write."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[ReferenceType[torch.Tensor], Stamp, dict[Hashable, Any]]] = {}

    def of(self, weight: torch.Tensor, make: Callable[[], T], name: Hashable = "") -> T:
        """The result of `make()`, which must not hold the weight itself; several for one weight differ by name."""
        key, stamp = id(weight), stamp_of(weight)
        held = self._held.get(key)
        if held is None or held[0]() is not weight or held[1] != stamp:  # an id may come a second time
            held = self._held[key] = ref(weight, lambda _: self._held.pop(key, None)), stamp, {}
        if name not in held[2]:
            held[2][name] = make()
        return held[2][name]

    def __len__(self) -> int:
        return len(self._held)


class Form(NamedTuple):
    """Which part of a weight [O, I, *kernel] a product reads, and in which direction."""

    sign: str = ""
    """"" the weight W itself, "+" max(W, 0), "-" max(-W, 0)."""
    flipped: bool = False
    """Outputs and inputs exchanged and the kernel reversed: the way down of a convolution of stride 1."""

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in this form; a view where that will do."""
        if self.sign:
            weight = weight.clamp(min=0) if self.sign == "+" else (-weight).clamp_(min=0)
        return weight.transpose(0, 1).flip(tuple(range(2, weight.dim()))) if self.flipped else weight

    def shape(self, weight: torch.Tensor) -> tuple[int, ...]:
        """The shape of `of(weight)`."""
        above, below, *kernel = weight.shape
        return (below, above, *kernel) if self.flipped else (above, below, *kernel)
