"""Relevance of one value during the top-down sweep, kept as a product for as long as that saves work.

A share rule ends in `p = x * t`: the activation x is common to all K class columns, t is not. The next rule
divides p by its own normaliser z, so the pair (t, x) is kept apart and one gate Q = x / z, made once for all
columns, carries t on: `r = t * Q`. Only the layer that was asked for is ever multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .. import ops


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
        return self.s if factor is None else self.columns(factor)

    def over(self, z: torch.Tensor) -> torch.Tensor:
        """`p / z`, and 0 where z is 0; z is [N, ...]."""
        factor = self.factor
        return ops.share(self.s, z) if factor is None else self.columns(ops.share(factor, z))

    def parted(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`p / z` as a factor [N*K, ...] and one [N, ...] that the K columns share, or None."""
        factor = self.factor
        return (ops.share(self.s, z), None) if factor is None else (self.s, ops.share(factor, z))

    def columns(self, gate: torch.Tensor) -> torch.Tensor:
        """`s * gate` with a gate [N, ...] that the K columns share."""
        return ops.gate(self.s, gate)

    def gated(self, gate: torch.Tensor) -> Relevance:
        """`p * gate` with a gate [N, ...] that the K columns share."""
        factor = self.factor
        return Relevance(self.columns(gate)) if factor is None else Relevance(self.s, factor * gate)

    def on(self, s: torch.Tensor, x: torch.Tensor | None) -> Relevance:
        """The relevance of other units, whose activations x these ones' were taken from as they are."""
        return Relevance(s, x, self.precision)

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Relevance:
        """The same relevance with `move` (a view or a copy that keeps axis 0) applied to both factors."""
        return self.on(move(self.s), None if self.x is None else move(self.x))

    def factor_is_that_of(self, other: Relevance) -> bool:
        return self.x is other.x and self.precision == other.precision

    def __neg__(self) -> Relevance:
        return self.on(-self.s, self.x)
