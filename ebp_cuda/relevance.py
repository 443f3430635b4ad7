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
    precision: str = "fp32"
    """To what x is rounded where it multiplies: as it was for the normaliser that s was divided by. It is kept as it
    is, so that rules know it by its identity."""

    @property
    def factor(self) -> torch.Tensor | None:
        """x as it multiplies, or None."""
        return self.x if self.x is None or self.precision == "fp32" else ops.rounded(self.x, self.precision)

    def p(self) -> torch.Tensor:
        """The probability itself, [N*K, ...]."""
        factor = self.factor
        return self.s if factor is None else ops.gate(self.s, factor)

    def over(self, z: torch.Tensor) -> torch.Tensor:
        """`p / z`, and 0 where z is 0; z is [N, ...]."""
        factor = self.factor
        return ops.share(self.s, z) if factor is None else ops.gate(self.s, ops.share(factor, z))

    def gated(self, gate: torch.Tensor) -> Relevance:
        """`p * gate` with a gate [N, ...] that the K columns share."""
        factor = self.factor
        return Relevance(ops.gate(self.s, gate)) if factor is None else Relevance(self.s, factor * gate)

    def on(self, s: torch.Tensor, x: torch.Tensor | None) -> Relevance:
        """The relevance of other units, whose activations x these ones' were taken from as they are."""
        return replace(self, s=s, x=x)

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Relevance:
        """The same relevance with `move` (a view or a copy that keeps axis 0) applied to both factors."""
        return self.on(move(self.s), None if self.x is None else move(self.x))

    def factor_is_that_of(self, other: Relevance) -> bool:
        return self.x is other.x and self.precision == other.precision

    def __sub__(self, other: Relevance) -> Relevance:
        if self.factor_is_that_of(other):
            return self.on(self.s - other.s, self.x)
        return Relevance(self.p() - other.p())


def add(parts: Sequence[Relevance]) -> Relevance:
    """The relevance of a value that several consumers shared back to, in the order given."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(part.factor_is_that_of(first) for part in parts):
        return first.on(_sum([part.s for part in parts]), first.x)
    return Relevance(_sum([part.p() for part in parts]))


def _sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total
