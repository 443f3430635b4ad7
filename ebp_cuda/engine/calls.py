"""How the calls of one method run: in parts where memory is bounded, replayed where they were recorded, and checked.

The way of a call: Calls.__call__ -> _in_parts -> _once -> run.measure, or its recording.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import InputError, NumericError, UnsupportedError, is_out_of_memory
from ..questions.question import Question
from ..rules.relevance import Relevance
from ..targets import Choice
from .budget import Account, Chunks, account_of
from .capture import Recordings
from .condition import warn_where_gained, warn_where_lost
from .passes import UNOBSERVED, Layer, Observer, Phase, forward
from .run import Measured, ReadOut, Tensors, Walk, images_of, joined_classes, joined_images, measure
from .status import CallLog, Status

log = logging.getLogger("ebp_cuda")

Inputs = Mapping[str, torch.Tensor]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Input name and shape, of every input."""


@dataclass(frozen=True)
class Request:
    """What one call asks for."""

    inputs: Inputs
    """By name, [N, ...], wherever the caller has them."""
    question: Question
    readout: ReadOut

    @property
    def shapes(self) -> Shapes:
        return tuple((name, tuple(x.shape)) for name, x in self.inputs.items())

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes)
        return f"{shapes}, {self.question.choice.count or 'all'} classes of each image"


class Calls:
    """The calls of one method.

    layers: what the caller calls the values of the walk, for messages. recordings: None where nothing is recorded.
    max_memory: bytes that a call may take beside the weights and its result, or None.
    """

    def __init__(
        self, walk: Walk, layers: Sequence[str], recordings: Recordings | None = None, max_memory: int | None = None
    ) -> None:
        self.walk, self.layers, self.recordings, self.max_memory = walk, tuple(layers), recordings, max_memory
        self.log: CallLog[Request] = CallLog()
        stages = walk.plan.stages(walk.route.keep | {walk.top}, walk.route.nodes)
        self._state = walk.plan.watch([stage.index for stage in stages])
        self._accounts: dict[Shapes, Account] = {}
        self._tops: dict[Shapes, tuple[int, ...]] = {}
        self._warned_of_loss = self._warned_of_gain = False

    def __call__(self, request: Request, observer: Observer = UNOBSERVED) -> Measured:
        """Runs a call. Raises what is wrong with it, or with an earlier one whose status has arrived."""
        self.log.raise_arrived()
        measured = self._in_parts(request, observer)
        classes = measured.scores.shape[1]
        self.log.enter(measured.status, str(request), request, lambda status, kept: self._judge(status, kept, classes))
        return measured

    def top_shape(self, inputs: Inputs) -> tuple[int, ...]:
        """The top's shape for inputs of these shapes, without the axis of images; found by a forward of one image, once
        for each size."""
        key = tuple((name, tuple(x.shape[1:])) for name, x in inputs.items())
        if key not in self._tops:
            plan, top = self.walk.plan, self.walk.top
            zeros = {name: torch.zeros(1, *x.shape[1:]) for name, x in inputs.items()}
            self._tops[key] = tuple(forward(plan, zeros, [top]).shapes[top][1:])
        return self._tops[key]

    # --- in parts ---------------------------------------------------------------------------------------------------

    def chunks(self, shapes: Shapes, classes: int) -> tuple[Chunks, int]:
        """The split of a call for `classes` classes (0 for all) of every image, and how many the model has."""
        one = tuple((name, shape[1:]) for name, shape in shapes)
        if one not in self._accounts:
            self._accounts[one] = account_of(self.walk, dict(shapes))
        account, images = self._accounts[one], shapes[0][1][0]
        count = classes or account.classes
        if self.max_memory is None:
            return Chunks(images, count, account.peak(images, count)), account.classes
        return account.split(images, count, self.max_memory), account.classes

    def _in_parts(self, request: Request, observer: Observer) -> Measured:
        """The call, in parts where max_memory asks for that."""
        if self.max_memory is None:
            return self._once(request, observer)
        each = request.question.columns_each
        chunks, classes = self.chunks(request.shapes, each * request.question.choice.count)
        chunks = replace(chunks, classes=max(1, chunks.classes // each))
        split = f"{chunks.images} images and {chunks.classes} classes at a time"
        log.info("max_memory: %s, about %.0f MB", split, chunks.peak / 1e6)
        parts = []
        for some in chunks.of_images(images_of(request.inputs)):
            own = {name: x[some] for name, x in request.inputs.items()}
            part = replace(request, inputs=own, question=request.question.of_images(some))
            parts.append(self._in_columns(chunks, part, classes, observer))
        return joined_images(parts)

    def _in_columns(self, chunks: Chunks, request: Request, classes: int, observer: Observer) -> Measured:
        question, images = request.question, images_of(request.inputs)
        count = question.choice.count or classes
        if chunks.classes >= count:
            return self._once(request, observer)
        question.check(classes)
        scores = torch.zeros(images, classes)
        if question.choice.kind == "top":  # the scores come with the map of any class
            first = Choice("given", 1, torch.zeros(images, 1, dtype=torch.int64))
            scores = self._once(
                replace(request, question=Question(first, question.positions, question.one_place)), observer
            ).scores
        question, _ = question.answered(scores)
        parts = []
        for some in chunks.of_classes(count):
            parts.append(self._once(replace(request, question=question.of_columns(some)), observer))
        return joined_classes(parts)

    # --- recorded ---------------------------------------------------------------------------------------------------

    def _once(self, request: Request, observer: Observer) -> Measured:
        """A call, or a part of one, all at once; replayed where it was recorded."""
        try:
            if self.recordings is None or observer is not UNOBSERVED:
                return self._measure(request, observer)
            return self._recorded(request, self.recordings)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            size = f"{images_of(request.inputs)} images, {request.question.choice.count or 'all'} classes of each"
            reason = str(error).splitlines()[0]
            raise UnsupportedError(f"{size}: out of memory, try fewer images or max_memory=: {reason}") from error

    def _measure(self, request: Request, observer: Observer = UNOBSERVED) -> Measured:
        return measure(self.walk, request.inputs, request.question, request.readout, self.layers, observer)

    def _recorded(self, request: Request, recordings: Recordings) -> Measured:
        question, inputs, plan = request.question, request.inputs, self.walk.plan
        key = (request.readout, request.shapes, question.key, _settings())
        state = self._state()
        run = recordings.find(key, state)
        if run is not None:
            question.check(Measured.of(run.results).scores.shape[1])
            return Measured.of(run((*inputs.values(), *question.tensors)))

        def work(*own: torch.Tensor) -> Tensors:
            asked = question.with_tensors(own[len(inputs) :])
            return self._measure(Request(dict(zip(inputs, own, strict=False)), asked, request.readout)).tensors

        def placed() -> Tensors:
            return (*map(plan.place, inputs.values()), *(tensor.to(plan.device) for tensor in question.tensors))

        measured = self._measure(request)
        recordings.learn(key, state, placed, work)
        return measured

    # --- checked ----------------------------------------------------------------------------------------------------

    def _judge(self, status: Status, request: Request | None, classes: int) -> None:
        """Raises what is wrong with a call, and warns of what its precision cannot carry.

        request: for another run that names the layer, where it is still at hand.
        """
        walk = self.walk
        status.check_inputs(walk.plan.graph)
        if status.lowest < 0 or status.highest >= classes:
            wrong = status.lowest if status.lowest < 0 else status.highest
            raise InputError(f"target {wrong:.0f}: the model has classes 0 to {classes - 1}")
        if status.least_seed == 0:
            raise InputError(
                "a column has nothing to start from: no feature is above 0 in it and in its embedding, or its seed is 0"
            )
        if not status.finite:
            layers = ", ".join(f"'{layer}'" for layer in self.layers)
            raise NumericError(f"relevance at layer {layers} is not finite{self._origin_of_trouble(request)}")
        layers = ", ".join(self.layers)
        if not self._warned_of_gain:
            self._warned_of_gain = warn_where_gained(status.largest_mass, walk.plan.rules, layers)
        if walk.contrast is not None and walk.plan.dtype != torch.float64 and not self._warned_of_loss:
            left = torch.tensor(status.least_mass)
            self._warned_of_loss = warn_where_lost(left, walk.plan.precision, layers)

    def _origin_of_trouble(self, request: Request | None) -> str:
        """The first layer that makes numbers which are not finite, found by running the call again."""
        if request is None:
            return ""
        try:
            self._in_parts(request, _FirstNotFinite(self.walk))
        except _NotFinite as found:
            return f": {found}"
        return ""


class _NotFinite(Exception):
    """What `_FirstNotFinite` has found; caught in the same file."""


class _FirstNotFinite:
    """Stops a call at the first layer that makes numbers which are not finite. Waits for the device at every layer."""

    def __init__(self, walk: Walk) -> None:
        self._nodes = walk.plan.graph.nodes

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[torch.Tensor | Relevance | None]:
        results = layer()
        for result in results:
            numbers = result.p() if isinstance(result, Relevance) else result
            if numbers is not None and not bool(numbers.isfinite().all()):
                node = self._nodes[index]
                made = "output" if phase == "forward" else "relevance of the inputs"
                raise _NotFinite(f"the first is the {made} of layer '{node.name}' ({node.source or node.op})")
        return results


def _settings() -> tuple[object, ...]:
    """The process's settings that choose among torch's kernels, apart from those that a pass overrides (ops.modes)."""
    return torch.backends.cudnn.enabled, torch.are_deterministic_algorithms_enabled()
