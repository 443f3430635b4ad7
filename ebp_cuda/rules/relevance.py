"""Relevance of one value during the top-down sweep, kept as a product for as long as that saves work.

A share rule ends in `p = x * t`: the activation x is common to all K class columns, t is not. The next rule
divides p by its own normaliser z, so the pair (t, x) is kept apart and one gate Q = x / z, made once for all
columns, carries t on: `r = t * Q`. Only the layer that was asked for is ever multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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


class Product(Relevance):
    """A relevance with `s = r W` for every pixel, the way down of a 1 x 1 convolution, not multiplied out yet.

    Where other consumers share back to the same value, the product is added into their sum as it is made, which saves
    writing it down and reading it again: a tenth of the time for many classes.
    """

    def __init__(self, r: torch.Tensor, weight: torch.Tensor, x: torch.Tensor) -> None:
        """r [N*K, O, h, w], weight [O, I], x [N, I, h, w]; all of one dtype, on the CPU."""
        for name, value in (("r", r), ("weight", weight), ("x", x), ("precision", "fp32")):
            object.__setattr__(self, name, value)

    r: torch.Tensor
    weight: torch.Tensor

    @cached_property
    def s(self) -> torch.Tensor:
        return self.multiplied()

    def multiplied(self) -> torch.Tensor:
        """s [N*K, I, h, w], channels_last, in memory of its own."""
        rows, _, height, width = self.r.shape
        return (_pixels(self.r) @ self.weight).view(rows, height, width, -1).permute(0, 3, 1, 2)

    def add_to(self, total: torch.Tensor) -> None:
        """total += s, for a total that lies as `multiplied` makes it."""
        _pixels(total).addmm_(_pixels(self.r), self.weight)


Sweep = Callable[[torch.Tensor | None, torch.Tensor | None], torch.Tensor]
"""(gate [N, ...] or None, addend [N*K, ...] or None) -> (t + addend) * gate."""


class Swept(Relevance):
    """A relevance whose s is a sweep t = L^T r that has not run: what multiplies t goes along into its kernel."""

    def __init__(self, sweep: Sweep, x: torch.Tensor, precision: str) -> None:
        for name, value in (("sweep", sweep), ("x", x), ("precision", precision)):
            object.__setattr__(self, name, value)

    sweep: Sweep

    @cached_property
    def s(self) -> torch.Tensor:
        return self.sweep(None, None)

    def columns(self, gate: torch.Tensor) -> torch.Tensor:
        return ops.gate(self.s, gate) if "s" in vars(self) else self.sweep(gate, None)

    def onto(self, total: torch.Tensor) -> Swept:
        """The relevance `s + total`, in the sweep's kernel too."""
        assert self.x is not None
        return Swept(lambda gate, _: self.sweep(gate, total), self.x, self.precision)


def _pixels(t: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] as [N*h*w, C]."""
    return t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])


def add(parts: Sequence[Relevance]) -> Relevance:
    """The relevance of a value that several consumers shared back to, summed in an order of their own."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if not all(part.factor_is_that_of(first) for part in parts):
        return Relevance(_sum([part.p() for part in parts]))
    swept = [part for part in parts if isinstance(part, Swept)]
    if swept:
        return _chained(swept, [part.s for part in parts if not isinstance(part, Swept)])
    products = [part for part in parts if isinstance(part, Product)]
    if not products:
        return first.on(_sum([part.s for part in parts]), first.x)
    total = products[0].multiplied()
    for product in products[1:]:
        product.add_to(total)
    for part in parts:
        if not isinstance(part, Product):
            total += part.s
    return first.on(total, first.x)


def _chained(swept: Sequence[Swept], others: Sequence[torch.Tensor]) -> Relevance:
    """Every sweep adds what came before it; the last has still to run."""
    total, *rest = swept
    if others:
        total = total.onto(others[0] if len(others) == 1 else _sum(others))
    for part in rest:
        total = part.onto(total.s)
    return total


def _sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total
