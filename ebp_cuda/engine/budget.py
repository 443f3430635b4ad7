"""How many images and classes may go at once within a given memory: a dry account of one call, and the split by it.

The account follows the two passes over the shapes of one image: what is alive when each layer runs, as bytes of an
image (activations, normalisers, winners) and bytes of each of its classes (what the sweep carries). The weights and
their packed forms are not in it, nor is the result: they are there however a call is split.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import torch

from .. import engine
from ..errors import InputError
from ..targets import Choice
from .passes import Trace
from .plan import Plan

log = logging.getLogger("ebp_cuda")

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SLACK = 1.75
"""For the scratch memory of convolutions and what an allocator holds back; measured in tests/engine/test_budget.py."""


def bytes_of(memory: int | str) -> int:
    """Bytes of "2GB", "500 MB", "1.5GiB" or a number of bytes. Raises InputError."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([KMGT]I?)?B?\s*", str(memory).upper())
    if match is None or float(match[1]) <= 0:
        raise InputError(f"max_memory={memory!r}: wanted a number of bytes, such as 2000000000, '2GB' or '1.5GiB'")
    return int(float(match[1]) * _UNITS[match[2] or ""])


Measure = Callable[[Mapping[str, torch.Tensor], Choice], tuple[torch.Tensor, ...]]


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


_BLOCK = 16 * 2**20
"""Bytes of the largest value that a sweep on a CPU carries. With more, glibc gives memory back to the kernel during a
call and gets every page of it anew (values from 32 MiB on one by one, smaller ones where 64 MiB in all are free)."""


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
        columns = min(classes, _fitting(images * self.largest)) if self.largest else classes
        return int(_SLACK * images * max(fixed + columns * column for fixed, column in self.moments))

    def split(self, images: int, classes: int, memory: int) -> Chunks:
        """The largest parts that fit `memory` bytes: classes stay together, which share a forward pass, and images go
        apart first. Raises InputError where not even one class of one image fits."""
        if self.peak(1, 1) > memory:
            raise InputError(f"max_memory={memory}: one class of one image takes about {self.peak(1, 1)} bytes")
        found = _largest(images, lambda n: self.peak(n, classes) <= memory)
        if found:
            return Chunks(found, classes, self.peak(found, classes))
        columns = _largest(classes, lambda k: self.peak(1, k) <= memory)
        return Chunks(1, columns, self.peak(1, columns))


def block_of(plan: Plan, trace: Trace, nodes: Sequence[int], classes: int) -> int:
    """How many of an image's classes a sweep over `nodes` carries at once: on a CPU as many as stay below the size from
    which a C library gives memory back to the kernel, and gets every page of it anew; elsewhere all."""
    if plan.device.type != "cpu":
        return classes
    return max(1, min(classes, _fitting(_largest_value(plan, trace, nodes))))


def _fitting(column: int) -> int:
    """How many columns of so many bytes are one block."""
    return max(1, _BLOCK // column)


def _largest_value(plan: Plan, trace: Trace, nodes: Sequence[int]) -> int:
    """Bytes of the largest value, of all images, that the nodes read or write."""
    values = {value for index in nodes for value in (*plan.graph.nodes[index].inputs, *plan.graph.nodes[index].outputs)}
    return (
        max((trace.shapes[value].numel() for value in values if value in trace.shapes), default=1) * plan.dtype.itemsize
    )


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, where all below a fitting one fit too; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def in_parts(
    chunks: Chunks, inputs: Mapping[str, torch.Tensor], choice: Choice, classes: int, measure: Measure
) -> tuple[torch.Tensor, ...]:
    """What `measure` finds for every part of a call, put together.

    measure: (inputs, choice) -> tensors [N, K, ...], the third of them the scores [N, classes].
    """
    images = next(iter(inputs.values())).shape[0]
    log.info("max_memory: %s images and %s classes at a time, about %.0f MB", *astuple(chunks)[:2], chunks.peak / 1e6)
    rows = []
    for some in chunks.of_images(images):
        own = {name: x[some] for name, x in inputs.items()}
        chosen = choice if choice.given is None else replace(choice, given=choice.given[some])
        rows.append(_in_columns(chunks, own, chosen, classes, measure))
    return tuple(torch.cat(group) for group in zip(*rows, strict=True))


def _in_columns(
    chunks: Chunks, inputs: Mapping[str, torch.Tensor], choice: Choice, classes: int, measure: Measure
) -> tuple[torch.Tensor, ...]:
    count = choice.count or classes
    if chunks.classes >= count:
        return measure(inputs, choice)
    choice.check(classes)
    given = choice.given
    if given is None:
        images = next(iter(inputs.values())).shape[0]
        scores = torch.zeros(images, classes)
        if choice.kind == "top":
            scores = measure(inputs, Choice("given", 1, torch.zeros(images, 1, dtype=torch.int64)))[2]
        given = choice.of(scores)
    parts = []
    for some in chunks.of_classes(count):
        part = given[:, some]
        parts.append(measure(inputs, replace(choice, kind="given", count=part.shape[1], given=part)))
    joined = [torch.cat(group, 1) for group in zip(*parts, strict=True)]
    joined[2] = parts[0][2]
    return tuple(joined)


def account_of(plan: Plan, inputs: Mapping[str, Sequence[int]], top: str, contrast: str | None, wanted: str) -> Account:
    """The account of a map at the value `wanted`, for inputs of these shapes; runs one image of zeros forward."""
    route = plan.route([top], [wanted])
    keep = route.keep | {top}
    zeros = {name: torch.zeros(1, *shape[1:]) for name, shape in inputs.items()}
    trace = engine.forward(plan, zeros, keep, route.nodes)
    book = _Book(plan, trace)
    book.forward(keep, route.nodes)
    if contrast is None:
        book.sweep(route.nodes, {top: book.size(top)})
    else:
        upper = plan.route([top], [contrast]).nodes
        book.sweep(upper, {top: book.size(top)})
        book.sweep(upper, {top: book.size(top)}, beside=book.size(contrast))
        book.enter(0, 3 * book.size(contrast))
        book.sweep(plan.route([contrast], [wanted]).nodes, {contrast: book.size(contrast)})
    book.enter(0, 3 * book.size(wanted))
    largest = _largest_value(plan, trace, route.nodes) if plan.device.type == "cpu" else 0
    return Account(tuple(book.moments), trace.shapes[top][1], largest)


class _Book:
    """Enters the moments of the passes over one image."""

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self.plan, self.trace = plan, trace
        self.moments: list[tuple[int, int]] = []
        saved = [t for group in trace.saved.values() for t in group.values() if isinstance(t, torch.Tensor)]
        self.kept = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                         for t in (*trace.values.values(), *saved)}.values())  # fmt: skip
        """Bytes of an image that the forward pass leaves, and then the normalisers."""

    def size(self, value: str) -> int:
        """Bytes of one image's value."""
        return self.trace.shapes[value].numel() * self.plan.dtype.itemsize

    def enter(self, image: int, column: int) -> None:
        """A moment with these bytes alive beside what is kept."""
        self.moments.append((self.kept + image, column))

    def forward(self, keep: frozenset[str], visited: Sequence[int]) -> None:
        alive: dict[str, int] = {}
        saved = 0
        for stage in self.plan.stages(keep, visited):
            for value in (*stage.node.inputs, *stage.node.outputs):
                alive[value] = self.size(value)
            saved += sum(
                t.nbytes for t in self.trace.saved.get(stage.index, {}).values() if isinstance(t, torch.Tensor)
            )
            written_over = alive[stage.node.inputs[0]] if stage.overwrites else 0
            self.moments.append((sum(alive.values()) + saved - written_over, 0))
            for value in stage.done:
                del alive[value]

    def sweep(self, nodes: Sequence[int], pending: dict[str, int], beside: int = 0) -> None:
        """pending: bytes of a class by value, where the sweep begins. beside: what lies there all the while."""
        for index in nodes:
            node = self.plan.graph.nodes[index]
            rule = self.plan.rule(node)
            above = sum(pending.pop(value, 0) for value in node.outputs)
            if not above or rule is None:
                continue
            out, below = sum(map(self.size, node.outputs)), sum(map(self.size, node.inputs))
            if rule.kind in ("share", "route", "gradient"):
                self.enter(out, beside + sum(pending.values()) + above + out + below)
            if rule.kind == "share":
                self.kept += out
            for value in node.inputs:
                pending[value] = pending.get(value, 0) + self.size(value)
        self.enter(0, beside + sum(pending.values()))
