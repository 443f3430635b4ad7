"""One call goes down once and comes back once: inputs, forward pass, seed, sweep, read-out.

`Walk` is that way through one network, whoever asks: ExcitationBackprop, the adapters, the pycaffe face. `measure` is
the whole of it for classes; how such a call is split, recorded and checked is in calls.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..errors import InputError, ShapeError
from ..ops import memory
from ..questions.question import Question
from ..rules.relevance import Relevance
from . import passes
from .condition import mass, mass_left
from .contrasts import truncated
from .passes import UNOBSERVED, Observer, Trace
from .plan import Plan, Route
from .status import status_of

Tensors = tuple[torch.Tensor, ...]
ReadOut = Literal["maps", "units"]
"""What a call reads of a layer's relevance: summed over channels, or every unit of it."""


@dataclass(frozen=True)
class Walk:
    """The way from `top`, by way of `contrast` where there is one, down to `values` (values of the plan's graph)."""

    plan: Plan
    top: str
    values: tuple[str, ...]
    contrast: str | None = None
    negated: frozenset[int] | None = None
    """The layers whose weights the contrast negates; None: the first ones with weights under the top."""

    @property
    def route(self) -> Route:
        """The layers on the way; asked for at every pass, since a rule that was registered since may read others."""
        return self.plan.route([self.top], self.values)

    def check(self) -> None:
        """Raises InputError where a value does not lie below the top or the contrast, or the contrast not below what
        it negates; UnsupportedError that lists every layer on the way without a rule."""
        plan = self.plan
        plan.route([self.top], self.values)
        if self.contrast is None:
            return
        plan.route([self.contrast], self.values)
        negated = plan.classifiers(self.top) if self.negated is None else self.negated
        if not negated.intersection(plan.route([self.top], [self.contrast]).nodes):
            raise InputError(
                f"{plan.graph.origin}: no classifier lies above '{self.contrast}': no layer with weights lies between "
                f"it and the top '{self.top}'; wanted a contrast layer below the classifier, whose weights are negated"
            )

    def forward(
        self, inputs: Mapping[str, torch.Tensor], keep: Collection[str] = (), observer: Observer = UNOBSERVED
    ) -> Trace:
        """The forward pass, keeping what the sweep reads, the top's activation and the values `keep`."""
        route = self.route
        return passes.forward(self.plan, inputs, {*route.keep, *keep, self.top}, route.nodes, observer)

    def sweep(
        self, trace: Trace, seed: torch.Tensor, observer: Observer = UNOBSERVED, *, negates: bool = True
    ) -> Swept:
        """The sweep of a seed [N*K, ...], shaped like the top's activation [N, ...].

        negates: whether at the contrast layer what the negated weights excite is subtracted; else the seed itself has
        what it is set against in it.
        """
        start, plan = Relevance(seed), self.plan
        if self.contrast is None or not negates:
            wanted = self.values if self.contrast is None else (self.contrast, *self.values)
            below = passes.sweep(plan, trace, self.route, {self.top: start}, wanted, observer=observer)
            return Swept(below, start if self.contrast is None else below[self.contrast])
        below = passes.contrastive_sweep(
            plan, trace, self.top, start, self.contrast, self.values, self.negated, observer
        )
        return Swept(below, below[self.contrast])


@dataclass(frozen=True)
class Swept:
    """What a sweep left."""

    relevance: dict[str, Relevance]
    """By value, those of the contrast layer included."""
    start: Relevance
    """Where the mass is counted from: at the contrast layer, or at the top."""


@dataclass(frozen=True)
class Measured:
    """What one call measured of N images for K classes each, at one layer or at several."""

    readouts: Tensors
    """By layer: maps [N, K, ...] over the axes of space or units [N, K, C, ...]."""
    mass_left: Tensors
    """By layer: [N, K], sum |p| at the layer over that where the mass is counted from."""
    targets: torch.Tensor
    """int64 [N, K]; -1 where a column is no class."""
    scores: torch.Tensor
    """float32 [N, classes]."""
    status: torch.Tensor
    """See status.py."""

    @property
    def tensors(self) -> Tensors:
        """All of it in a row, as a recording holds it; `of` is the way back."""
        return (*self.readouts, *self.mass_left, self.targets, self.scores, self.status)

    @classmethod
    def of(cls, tensors: Tensors) -> Measured:
        *layers, targets, scores, status = tensors
        half = len(layers) // 2
        return cls(tuple(layers[:half]), tuple(layers[half:]), targets, scores, status)


def measure(
    walk: Walk,
    inputs: Mapping[str, torch.Tensor],
    question: Question,
    readout: ReadOut,
    names: Sequence[str],
    observer: Observer = UNOBSERVED,
) -> Measured:
    """A whole call, launch by launch; reads nothing back from the device unless a rule does.

    inputs: by name, [N, ...], already placed or not. names: what the caller calls the walk's values, for messages.
    """
    plan, top = walk.plan, walk.top
    placed = {name: plan.place(x) for name, x in inputs.items()}
    trace = walk.forward(placed, observer=observer)
    check_top(trace.values[top], top, images_of(inputs))
    scores = question.scores(trace.values[top])
    question.check(scores.shape[1])
    answered, targets = question.answered(scores)
    count = targets.shape[1]
    at_once = columns_at_once(plan, trace, walk.route.nodes, count * question.columns_each)
    size = max(1, at_once // question.columns_each)
    blocks = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    parts = [_columns(walk, trace, answered.of_columns(block), readout, names, observer) for block in blocks]
    readouts, masses = _side_by_side([part[0] for part in parts]), _side_by_side([part[1] for part in parts])
    seeds = tuple(part[2] for part in parts if part[2] is not None)
    status = status_of(tuple(placed.values()), question.asked_classes(), masses, seeds)
    return Measured(readouts, masses, targets, scores.float(), status)


def _side_by_side(blocks: Sequence[Tensors]) -> Tensors:
    """By layer: what blocks of columns gave, along axis 1; of one block nothing is copied."""
    return blocks[0] if len(blocks) == 1 else tuple(torch.cat(parts, 1) for parts in zip(*blocks, strict=True))


def check_top(top: torch.Tensor, name: str, images: int) -> None:
    """Raises ShapeError where the top's activation is not that of so many images."""
    if top.dim() < 1 or top.shape[0] != images:
        shapes = f"[{images}], [{images}, classes] or [{images}, classes, h, w]"
        raise ShapeError(f"top '{name}' has shape {list(top.shape)}, wanted {shapes}")


def _columns(
    walk: Walk, trace: Trace, question: Question, readout: ReadOut, names: Sequence[str], observer: Observer
) -> tuple[Tensors, Tensors, torch.Tensor | None]:
    """The read-outs and the mass left at every layer, for some of the columns; and the mass of seeds that may be 0."""
    top = trace.values[walk.top]
    shape = torch.Size((len(top), question.choice.count))
    seed = question.start(top)
    swept = walk.sweep(trace, seed, observer, negates=question.contrast in ("", "everything else"))
    readouts, masses = [], []
    for value, name in zip(walk.values, names, strict=True):
        p = swept.relevance[value].p()
        if question.contrast == "truncated":
            excited, other = p.unflatten(0, (shape[0], 2, shape[1])).unbind(1)
            p = truncated(excited, other, question.percentile).flatten(0, 1)
            masses.append(mass(p).reshape(shape))  # of halves that were scaled to sum to 1
        else:
            masses.append(mass_left(p, swept.start).reshape(shape))
        readouts.append(_READ[readout](p, shape, name))
    may_be_empty = question.embedding is not None or question.seed is not None
    return tuple(readouts), tuple(masses), mass(seed) if may_be_empty else None


def _maps(p: torch.Tensor, columns: torch.Size, name: str) -> torch.Tensor:
    """Relevance summed over channels: [N, K, h, w] of planes, [N, K, L] of sequences, [N, K, t, h, w] of volumes."""
    if p.dim() not in (3, 4, 5):
        shape = list(p.shape[1:])
        raise ShapeError(f"layer '{name}' has no plane to map (its shape is [N] + {shape}): use relevance()")
    return p.sum(1).reshape(*columns, *p.shape[2:])


def _units(p: torch.Tensor, columns: torch.Size, name: str) -> torch.Tensor:
    """Relevance of every unit, [N, K, C, ...]."""
    return p.reshape(*columns, *p.shape[1:])


_READ: dict[ReadOut, Callable[[torch.Tensor, torch.Size, str], torch.Tensor]] = {"maps": _maps, "units": _units}


def columns_at_once(plan: Plan, trace: Trace, nodes: Sequence[int], columns: int) -> int:
    """How many of an image's columns a sweep over `nodes` carries at once: all, or what memory is good for."""
    if not memory.carried_in_blocks(plan.device):
        return columns
    return min(columns, memory.columns(largest_value(plan, trace, nodes)))


def largest_value(plan: Plan, trace: Trace, nodes: Sequence[int]) -> int:
    """Bytes of the largest value, of all images, that the nodes read or write."""
    values = {value for index in nodes for value in (*plan.graph.nodes[index].inputs, *plan.graph.nodes[index].outputs)}
    sizes = [trace.shapes[value].numel() for value in values if value in trace.shapes]
    return max(sizes, default=1) * plan.dtype.itemsize


def joined_images(parts: Sequence[Measured]) -> Measured:
    """The call whose images were measured in parts."""
    return _joined(parts, 0)


def joined_classes(parts: Sequence[Measured]) -> Measured:
    """The call whose columns were measured in parts, of the same images."""
    return replace(_joined(parts, 1), scores=parts[0].scores)


def _joined(parts: Sequence[Measured], axis: int) -> Measured:
    groups = [torch.cat(group, axis) for group in zip(*(part.tensors[:-1] for part in parts), strict=True)]
    return Measured.of((*groups, torch.cat([part.status for part in parts])))


def images_of(inputs: Mapping[str, torch.Tensor]) -> int:
    """N, of inputs [N, ...]."""
    return int(next(iter(inputs.values())).shape[0])
