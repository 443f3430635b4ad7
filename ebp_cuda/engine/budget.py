"""How many images and classes may go at once within a given memory: a dry account of one call, and the split by it.

The account is counted: the call runs on meta tensors, which have shapes and no numbers, for one image and one and two
classes, and every allocation and release of it is noted. So there are two figures for every moment: the bytes of an
image, and those of each of its classes besides. The weights and their packed forms are not in it: they are there
however a call is split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from ..ops import memory
from ..questions.question import Question
from ..targets import Choice
from .passes import Layer, Phase
from .plan import Plan
from .run import Walk, largest_value, measure

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SLACK = 1.75
"""For the scratch memory of convolutions and what an allocator holds back; measured in tests/engine/test_budget.py."""


def bytes_of(memory: int | str) -> int:
    """Bytes of "2GB", "500 MB", "1.5GiB" or a number of bytes. Raises InputError."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([KMGT]I?)?B?\s*", str(memory).upper())
    if match is None or float(match[1]) <= 0:
        raise InputError(f"max_memory={memory!r}: wanted a number of bytes, such as 2000000000, '2GB' or '1.5GiB'")
    return int(float(match[1]) * _UNITS[match[2] or ""])


@dataclass(frozen=True)
class Chunks:
    """How one call is split: parts of `images` images, and of `classes` classes of each."""

    images: int
    classes: int
    peak: int
    """Estimated bytes of a part at its worst moment."""

    def of_images(self, count: int) -> Iterator[slice]:
        return _slices(count, self.images)

    def of_classes(self, count: int) -> Iterator[slice]:
        return _slices(count, self.classes)


def _slices(count: int, size: int) -> Iterator[slice]:
    """The fewest slices of at most `size`, all about as long."""
    parts = -(-count // size)
    for i in range(parts):
        yield slice(i * count // parts, (i + 1) * count // parts)


@dataclass(frozen=True)
class Account:
    """The moments of one call: bytes of every image, and of every class of it besides."""

    moments: tuple[tuple[int, int], ...]
    classes: int
    """How many the model has."""
    largest: int = 0
    """Bytes of an image's largest value on the way down, where classes go down in blocks; otherwise 0."""

    def peak(self, images: int, classes: int) -> int:
        """Estimated bytes that a call takes at its worst moment."""
        columns = min(classes, memory.columns(images * self.largest)) if self.largest else classes
        return int(_SLACK * images * max(fixed + columns * column for fixed, column in self.moments))

    def split(self, images: int, classes: int, limit: int) -> Chunks:
        """The largest parts that fit `limit` bytes: classes stay together, which share a forward pass, and images go
        apart first. Raises InputError where not even one class of one image fits."""
        if self.peak(1, 1) > limit:
            raise InputError(f"max_memory={limit}: one class of one image takes about {self.peak(1, 1)} bytes")
        most = _largest(images, lambda n: self.peak(n, classes) <= limit)
        if most:
            return Chunks(most, classes, self.peak(most, classes))
        columns = _largest(classes, lambda k: self.peak(1, k) <= limit)
        return Chunks(1, columns, self.peak(1, columns))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, where all below a fitting one fit too; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def account_of(walk: Walk, inputs: Mapping[str, Sequence[int]]) -> Account:
    """The account of a call for inputs of these shapes [N, ...], by name."""
    plan = walk.plan
    dry = replace(walk, plan=_dry(plan))
    images = {name: torch.empty(1, *shape[1:], device="meta") for name, shape in inputs.items()}
    with _Allocations():  # packs the weights, which stay
        trace = dry.forward(images)
        dry.sweep(trace, trace.values[walk.top])
    one, two = _peaks(dry, images, 1), _peaks(dry, images, 2)
    moments = tuple((max(0, 2 * a - b), max(0, b - a)) for a, b in zip(one, two, strict=True))
    largest = largest_value(plan, trace, walk.route.nodes) if memory.carried_in_blocks(plan.device) else 0
    return Account(moments, trace.shapes[walk.top][1], largest)


def _dry(plan: Plan) -> Plan:
    """The plan on meta tensors."""
    dry = Plan(plan.graph, plan.rules, torch.device("meta"), plan.dtype, plan.precision)
    dry.backend = plan.backend
    return dry


def _peaks(walk: Walk, inputs: Mapping[str, torch.Tensor], columns: int) -> list[int]:
    """The most bytes alive during and after every layer of a call, for so many classes of one image."""
    question = Question(Choice("given", columns, torch.zeros(1, columns, dtype=torch.int64, device="meta")))
    with _Allocations() as allocations:
        measure(walk, inputs, question, "units", walk.values, allocations)
    return allocations.peaks


class _Allocations(TorchDispatchMode):
    """Counts the bytes alive of what is made in it, as the observer of a call: moment by moment, each a layer or what
    follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks = [0]
        self._older: list[_Allocation] = []
        self._older_bytes = 0
        """Of what was made before the present moment; what of it is given back within counts until its end."""
        self._newer: list[_Allocation] = []

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[Any]:
        self._next_moment()
        try:
            return layer()
        finally:
            self._next_moment()

    def _next_moment(self) -> None:
        self._older, self._newer = _alive([*self._older, *self._newer]), []
        self._older_bytes = _bytes(self._older)
        self.peaks.append(self._older_bytes)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket is torch.ops.aten._local_scalar_dense:
            return 1  # a rule asks something of numbers that are not there: yes, which is the way that takes more
        result = func(*args, **(kwargs or {}))
        read = {storage._cdata for storage in _storages((*args, *(kwargs or {}).values()))}
        made = [storage for storage in _storages((result,)) if storage._cdata not in read]
        if made:
            self._newer = [*_alive(self._newer), *((StorageWeakRef(storage), storage.nbytes()) for storage in made)]
            self.peaks[-1] = max(self.peaks[-1], self._older_bytes + _bytes(self._newer))
        return result


_Allocation = tuple[StorageWeakRef, int]


def _alive(allocations: Iterable[_Allocation]) -> list[_Allocation]:
    return [allocation for allocation in allocations if not allocation[0].expired()]


def _bytes(allocations: Iterable[_Allocation]) -> int:
    return sum(size for _, size in allocations)


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value.untyped_storage()
        elif isinstance(value, (tuple, list)):
            yield from _storages(value)
