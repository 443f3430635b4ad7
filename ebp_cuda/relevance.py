"""Relevance of one value during the top-down sweep, kept as a product for as long as that saves work.

A share rule ends in `p = x * t`: the activation x is common to all K class columns, t is not. The next rule
divides p by its own normaliser z, so the pair (t, x) is kept apart and one gate Q = x / z, made once for all
columns, carries t on: `r = t * Q`. Only the layer that was asked for is ever multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from . import ops


@dataclass(frozen=True)
class Relevance:
    """Probability p of a value, for N images and K classes each: `p = s` or `p = s * x`."""

    s: torch.Tensor
    """[N*K, ...], image-major."""
    x: torch.Tensor | None = None
    """[N, ...], the factor that the K columns of an image share, or None."""

    def p(self) -> torch.Tensor:
        """The probability itself, [N*K, ...]."""
        return self.s if self.x is None else ops.gate(self.s, self.x)

    def over(self, z: torch.Tensor) -> torch.Tensor:
        """`p / z`, and 0 where z is 0; z is [N, ...]."""
        if self.x is None:
            return ops.share(self.s, z)
        return ops.gate(self.s, ops.share(self.x, z))

    def gated(self, gate: torch.Tensor) -> Relevance:
        """`p * gate` with a gate [N, ...] that the K columns share."""
        if self.x is None:
            return Relevance(ops.gate(self.s, gate))
        return replace(self, x=self.x * gate)

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Relevance:
        """The same relevance with `move` (a view or a copy that keeps axis 0) applied to both factors."""
        return Relevance(move(self.s), None if self.x is None else move(self.x))

    def __sub__(self, other: Relevance) -> Relevance:
        if self.x is other.x:
            return Relevance(self.s - other.s, self.x)
        return Relevance(self.p() - other.p())


def add(parts: Sequence[Relevance]) -> Relevance:
    """The relevance of a value that several consumers shared back to, in the order given."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(part.x is first.x for part in parts):
        return Relevance(_sum([part.s for part in parts]), first.x)
    return Relevance(_sum([part.p() for part in parts]))


def _sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total
