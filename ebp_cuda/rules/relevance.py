"""Relevance of one value during the top-down sweep, kept as a product for as long as that saves work.

A share rule ends in `p = x * t`: the activation x is common to all K class columns, t is not. The next rule
divides p by its own normalizer z, so the pair (t, x) is kept apart and one gate Q = x / z, computed once for all
columns, carries t on: `r = t * Q`. Only the layer that was asked for is ever multiplied out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import ops
from ..linear import pending
from ..linear.pending import Pending, Ratio, Values
from .saved import Gate

_RENAMED = {
    "columns": "scale_columns",
    "factor_is_that_of": "shares_factor_with",
    "gated": "times",
    "moved": "map",
    "on": "with_values",
    "over": "divided_by",
}


class Relevance:
    """Probability p of a value, for N images and K classes each: `p = s` or `p = s * x`.

    Args:
        s: [N*K, ...], image-major; or the way down of a layer that is computed when somebody reads it.
        x: [N, ...], the factor that the K columns of an image share, or None.
        precision: to what x is rounded where it multiplies: "fp32" (as it is), "tf32" or "bf16", as it was for the
            normalizer that s was divided by; by default as s asks for it. `x` itself is kept as it is, so that rules
            recognize it by identity.
    """

    __slots__ = ("_values", "precision", "x")

    def __init__(self, s: Values, x: torch.Tensor | None = None, precision: str = "") -> None:
        self._values, self.x = s, x
        self.precision = precision or (s.precision if isinstance(s, Pending) else "fp32")

    @property
    def s(self) -> torch.Tensor:
        """[N*K, ...]."""
        return pending.tensor_of(self._values)

    @property
    def is_followed(self) -> bool:
        """Whether autograd records what is computed from it, as it does in the transposed sweep."""
        return pending.are_followed(self._values)

    @property
    def factor(self) -> torch.Tensor | None:
        """x as it multiplies, or None."""
        return self.x if self.x is None or self.precision == "fp32" else ops.rounded(self.x, self.precision)

    def p(self) -> torch.Tensor:
        """The probability itself, [N*K, ...]."""
        factor = self.factor
        return self.s if factor is None else self.scale_columns(factor)

    def divided_by(self, z: torch.Tensor) -> torch.Tensor:
        """r = p / z [N*K, ...], and 0 where z [N, ...] is 0."""
        return self.divided_in_factors(z).product()

    def divided_in_factors(self, z: torch.Tensor | Gate) -> Ratio:
        """r = p / z as a product, which a linear map may multiply out as it reads.

        Args:
            z: the normalizer [N, ...]; or a layer's gate y / z, which is all it takes where p is a multiple of y.
        """
        if isinstance(z, Gate):
            if self.factor is z.y:
                return Ratio(self._values, z.ratio)
            z = z.normalizer
        factor = self.factor
        if factor is None:
            return Ratio(ops.divide_or_zero(self.s, z))
        return Ratio(self._values, ops.divide_or_zero(factor, z))

    def scale_columns(self, gate: torch.Tensor) -> torch.Tensor:
        """`s * gate` with a gate [N, ...] that the K columns share."""
        return pending.scale_columns(self._values, gate)

    def times(self, gate: torch.Tensor) -> Relevance:
        """`p * gate` with a gate [N, ...] that the K columns share."""
        factor = self.factor
        return Relevance(self.scale_columns(gate)) if factor is None else Relevance(self.s, factor * gate, "fp32")

    def with_values(self, s: Values, x: torch.Tensor | None) -> Relevance:
        """The relevance of other units, whose activations x are a selection or rearrangement of these units' ones."""
        return Relevance(s, x, self.precision)

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Relevance:
        """The same relevance with `move` (a view or a copy that keeps axis 0) applied to both factors."""
        return self.with_values(move(self.s), None if self.x is None else move(self.x))

    def shares_factor_with(self, other: Relevance) -> bool:
        """Whether the sum of the two is the sum of their s, times that factor."""
        return self.x is other.x and self.precision == other.precision

    def __getattr__(self, name: str) -> Any:
        """Methods by the names that they had before, for rules of others."""
        if name not in _RENAMED:
            raise AttributeError(f"'Relevance' object has no attribute '{name}'")
        warnings.warn(f"Relevance.{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return getattr(self, _RENAMED[name])

    def __neg__(self) -> Relevance:
        return self.with_values(-self.s, self.x)


def only(above: Sequence[Relevance | None]) -> Relevance:
    """The relevance of a layer's only output, without which no rule is called."""
    relevance = above[0]
    assert relevance is not None, "a rule was called without a relevance"
    return relevance


def add(parts: Sequence[Relevance]) -> Relevance:
    """The relevance of a value that several layers read, from what each of them gave to it."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if not all(part.shares_factor_with(first) for part in parts):
        return Relevance(pending.total([part.p() for part in parts]))
    return first.with_values(pending.add([part._values for part in parts]), first.x)
