"""Relevances that a layer has not swept down to yet, and the sum of what several layers shared back to one value.

Whoever reads such a relevance makes it. Where other consumers share back to the same value it is made as a summand of
theirs, which saves writing it down and reading it again; on CUDA the gate of the next layer goes into the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from .. import ops
from ..ops import tiles
from .relevance import Relevance


class Deferred(Relevance):
    """A relevance whose s is made when it is read; subclasses say how."""

    def _fill(self, **fields: object) -> None:
        for name, value in fields.items():  # of a frozen dataclass
            object.__setattr__(self, name, value)

    def plus(self, total: torch.Tensor | None) -> torch.Tensor:
        """s + total, in memory of its own."""
        raise NotImplementedError

    def added_to(self, total: torch.Tensor) -> torch.Tensor:
        """s + total, for a total that nobody else reads."""
        return self.plus(total)

    @cached_property
    def s(self) -> torch.Tensor:
        return self.plus(None)


class Product(Deferred):
    """`s = r W` for every pixel: the way down of a 1 x 1 convolution, as a matrix product."""

    def __init__(self, r: torch.Tensor, weight: torch.Tensor, x: torch.Tensor) -> None:
        """r [N*K, O, h, w], weight [O, I], x [N, I, h, w]; all of one dtype, on the CPU."""
        self._fill(r=r, weight=weight, x=x, precision="fp32")

    r: torch.Tensor
    weight: torch.Tensor

    def plus(self, total: torch.Tensor | None) -> torch.Tensor:
        if total is None:
            flat = _pixels(self.r) @ self.weight
        else:
            flat = torch.addmm(_pixels(total), _pixels(self.r), self.weight)
        rows, _, height, width = self.r.shape
        return flat.view(rows, height, width, -1).permute(0, 3, 1, 2)

    def added_to(self, total: torch.Tensor) -> torch.Tensor:
        _pixels(total).addmm_(_pixels(self.r), self.weight)
        return total


class Tiled(Deferred):
    """The sum of convolutions by the matrix tiles of a CPU, which multiply gates in as they read and take what they are
    to be added to as their start."""

    def __init__(self, sources: Sequence[tiles.Source], padding: Sequence[int], x: torch.Tensor) -> None:
        """sources and padding as for `tiles.convolve`, x [N, I, h, w]."""
        self._fill(sources=tuple(sources), padding=tuple(padding), x=x, precision="fp32")

    sources: tuple[tiles.Source, ...]
    padding: tuple[int, ...]

    def plus(self, total: torch.Tensor | None) -> torch.Tensor:
        return tiles.convolve(self.sources, self.padding, addend=total)

    def joins(self, other: Relevance) -> bool:
        """Whether one call can make the sum of the two."""
        return (
            isinstance(other, Tiled)
            and self.padding == other.padding
            and self.sources[0].weight.shape[2:] == other.sources[0].weight.shape[2:]
            and (self.sources[0].gate is None) == (other.sources[0].gate is None)
        )

    def joined(self, other: Tiled) -> Tiled:
        assert self.x is not None
        return Tiled(self.sources + other.sources, self.padding, self.x)


Sweep = Callable[[torch.Tensor | None, torch.Tensor | None], torch.Tensor]
"""(gate [N, ...] or None, addend [N*K, ...] or None) -> (t + addend) * gate."""


class Swept(Deferred):
    """A sweep t = L^T r on CUDA: what multiplies t goes along into its kernel too."""

    def __init__(self, sweep: Sweep, x: torch.Tensor, precision: str) -> None:
        self._fill(sweep=sweep, x=x, precision=precision)

    sweep: Sweep

    def plus(self, total: torch.Tensor | None) -> torch.Tensor:
        return self.sweep(None, total)

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
    deferred = _joined([part for part in parts if isinstance(part, Deferred)])
    made = [part.s for part in parts if not isinstance(part, Deferred)]
    total = _sum(made) if made else None
    if deferred and isinstance(deferred[-1], Swept):
        return _last_one_waiting(deferred, total)
    for place, part in enumerate(deferred):
        total = part.added_to(total) if total is not None and (place > 0 or len(made) > 1) else part.plus(total)
    assert total is not None
    return first.on(total, first.x)


def _joined(parts: Sequence[Deferred]) -> list[Deferred]:
    """The same sum in fewer parts."""
    found: list[Deferred] = []
    for part in parts:
        if isinstance(part, Tiled):
            place = next((i for i, other in enumerate(found) if part.joins(other)), None)
            if place is not None:
                before = found[place]
                assert isinstance(before, Tiled)
                found[place] = before.joined(part)
                continue
        found.append(part)
    return found


def _last_one_waiting(swept: Sequence[Deferred], total: torch.Tensor | None) -> Relevance:
    """Every sweep adds what came before it; the last has still to run."""
    *before, last = swept
    for part in before:
        total = part.plus(total)
    assert isinstance(last, Swept)
    return last if total is None else last.onto(total)


def _sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of one tensor that tensor itself, of more a new one."""
    if len(tensors) == 1:
        return tensors[0]
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total
