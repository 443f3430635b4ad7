"""The way down L^T r, not computed yet, so that a sum of several is computed in one go.

A value that several layers read gets a term from each of them. Matrix tiles multiply all terms into one sum, matrix
products add into the sum that is there, and on CUDA each kernel adds to what the one before it wrote, and the last one
multiplies by the next layer's gate as well. None of that writes a term down and reads it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import torch

from .. import ops
from ..ops.adjoint import is_followed
from .part import Part


class Ratio:
    """r = p / z in two factors: s [N*K, ...] and a gate [N, ...] that the K columns of an image share, or None."""

    def __init__(self, s: Values, gate: torch.Tensor | None = None) -> None:
        self._s, self._gate = s, gate
        self._product: torch.Tensor | None = None

    def factors(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Both factors, s computed."""
        return tensor_of(self._s), self._gate

    @property
    def is_followed(self) -> bool:
        """Whether autograd records what is computed from r, as it does in the transposed sweep."""
        return are_followed(self._s)

    def product(self) -> torch.Tensor:
        """r itself, computed once."""
        if self._product is None:
            self._product = tensor_of(self._s) if self._gate is None else scale_columns(self._s, self._gate)
        return self._product


class Term(NamedTuple):
    """L^T (s * gate) for one part of one layer's map."""

    part: Part
    s: torch.Tensor
    """[N*K, O, ...]."""
    gate: torch.Tensor | None
    """[N, O, ...]; only for kernels that multiply it in as they read."""
    shape: torch.Size
    """Of the layer's input, [N, I, ...]."""
    kernel: str
    """What computes it, see choice.py."""


class Evaluator(Protocol):
    """What computes terms: a backend."""

    gates: bool
    """Whether its kernels multiply what they computed by a gate as well."""

    def evaluate(
        self, terms: Sequence[Term], addend: torch.Tensor | None, gate: torch.Tensor | None, owned: bool
    ) -> torch.Tensor:
        """(sum of the terms + addend) * gate, in memory of its own.

        Args:
            terms: at least one, of one shape below.
            addend: [N*K, I, ...], or None.
            gate: [N, I, ...], or None.
            owned: whether nobody else reads the addend, so that the sum may be written over it.
        """


class Pending:
    """The sum of terms L^T r and an addend, [N*K, I, ...]; computed when it is read, once."""

    def __init__(
        self,
        backend: Evaluator,
        terms: Sequence[Term],
        addend: torch.Tensor | None = None,
        *,
        owned: bool = False,
    ) -> None:
        self._backend, self._terms, self._addend, self._owned = backend, tuple(terms), addend, owned
        self._computed: torch.Tensor | None = None
        self.precision = terms[0].part.precision if terms else "fp32"
        """To what the activation that multiplies the sum was rounded for the normalizer of the terms."""

    @classmethod
    def made(cls, backend: Evaluator, sum_: torch.Tensor, precision: str) -> Pending:
        """One that was computed elsewhere, in that precision."""
        pending = cls(backend, ())
        pending._computed, pending.precision = sum_, precision
        return pending

    @property
    def is_computed(self) -> bool:
        """Whether somebody has read it."""
        return self._computed is not None

    def tensor(self) -> torch.Tensor:
        """The sum."""
        if self._computed is None:
            self._computed = self._backend.evaluate(self._terms, self._addend, None, self._owned)
            self._terms, self._addend = (), None  # their memory is free
        return self._computed

    def scale_columns(self, gate: torch.Tensor) -> torch.Tensor:
        """The sum times a gate [N, I, ...] that the K columns of an image share; in the same kernel where that can."""
        if self._backend.gates and self._computed is None:
            return self._backend.evaluate(self._terms, self._addend, gate, False)
        return ops.gate(self.tensor(), gate)

    def joined(self, others: Sequence[Pending], addend: torch.Tensor | None, owned: bool) -> Pending:
        """The sum of this, others that nobody has read, and an addend."""
        terms = [term for pending in (self, *others) for term in pending._terms]
        addends = [pending._addend for pending in (self, *others) if pending._addend is not None]
        if addends:
            addend, owned = total([*([] if addend is None else [addend]), *addends]), False
        joined = Pending(self._backend, terms, addend, owned=owned)
        if not self._backend.gates:  # nothing more can go into it, and its terms hold memory
            joined.tensor()
        return joined


Values: TypeAlias = "torch.Tensor | Pending"


def tensor_of(values: Values) -> torch.Tensor:
    """The tensor, computed where it was pending."""
    return values.tensor() if isinstance(values, Pending) else values


def are_followed(values: Values) -> bool:
    """Whether autograd records what is computed from them; what is pending is recorded by nothing."""
    tensor = values._computed if isinstance(values, Pending) else values
    return tensor is not None and is_followed(tensor)


def scale_columns(values: Values, gate: torch.Tensor) -> torch.Tensor:
    """values [N*K, ...] times a gate [N, ...] that the K columns of an image share."""
    return values.scale_columns(gate) if isinstance(values, Pending) else ops.gate(values, gate)


def add(parts: Sequence[Values]) -> Values:
    """The sum of two or more, pending where one of them is."""
    waiting = [part for part in parts if isinstance(part, Pending) and not part.is_computed]
    made = [tensor_of(part) for part in parts if not (isinstance(part, Pending) and not part.is_computed)]
    addend = total(made) if made else None
    if not waiting:
        assert addend is not None
        return addend
    return waiting[0].joined(waiting[1:], addend, len(made) > 1)


def total(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of one tensor that tensor itself, of more a new one."""
    if len(tensors) == 1:
        return tensors[0]
    result = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        result += tensor
    return result
