"""The two passes: forward, keeping what the way down needs, and the top-down sweep. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from ..errors import InputError, ShapeError, UnsupportedError, is_out_of_memory
from ..graph import Node
from ..ops.host_sync import HostRead
from ..ops.modes import exact
from ..rules import Rule, Saved, Step
from ..rules.relevance import Relevance, add
from .plan import Plan, Route, Stage


@dataclass
class Trace:
    """What one forward pass left behind for the sweeps over it."""

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    """Kept activations by value name, [N, ...]."""
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    """Shape of every value that was computed."""
    saved: dict[int, Saved] = field(default_factory=dict)
    """By node: what its forward saved, and then what sweeps share."""

    def begin(self, values: Mapping[str, torch.Tensor]) -> None:
        """Enters values, already placed, from which a pass goes on."""
        self.values.update(values)
        self.shapes.update({name: tensor.shape for name, tensor in values.items()})

    def forget_normalizers(self) -> None:
        """To be called where weights were written to between the forward and a sweep."""
        for saved in self.saved.values():
            saved.normalizers.clear()


Phase = Literal["forward", "sweep"]
Layer = Callable[[], Sequence[Any]]
"""One layer of one pass: its outputs, or the relevances of its inputs."""


class Observer(Protocol):
    """Looks on while the layers of a call run: takes their time, or looks at their results."""

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[Any]:
        """Runs `layer`, which is node `index` of the graph, and returns its result."""


class Unobserved:
    """The observer of ordinary calls."""

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[Any]:
        return layer()


UNOBSERVED = Unobserved()


def forward(
    plan: Plan,
    inputs: Mapping[str, torch.Tensor],
    keep: Collection[str],
    visited: Collection[int] = (),
    observer: Observer = UNOBSERVED,
) -> Trace:
    """Computes the values in `keep` and drops every other one as soon as its last reader has run.

    `visited`: nodes that a sweep will visit, whose winner codes and the like are kept too.
    """
    trace = Trace()
    trace.begin({name: plan.place(tensor) for name, tensor in inputs.items()})
    with exact(plan.device):
        for stage in plan.stages(keep, visited):
            _run(plan, trace, stage, observer)
            for value in stage.done:
                del trace.values[value]
    return trace


def advance(plan: Plan, trace: Trace, stages: Iterable[Stage]) -> None:
    """A slice of a forward pass: computes the outputs of `stages` from the values in the trace, and drops none.

    To be called under `ops.modes.exact`.
    """
    for stage in stages:
        _run(plan, trace, stage, UNOBSERVED)


def _run(plan: Plan, trace: Trace, stage: Stage, observer: Observer) -> None:
    node = stage.node
    xs = [trace.values[value] for value in node.inputs]
    saved = Saved(overwrite=stage.overwrites, linear=plan.linear(stage.index))
    try:
        ys = observer.run("forward", stage.index, lambda: stage.forward(node, plan.params(stage.index), xs, saved))
    except (RuntimeError, HostRead) as error:
        raise _named(plan, node, [x.shape for x in xs], error, "fewer images") from error
    if stage.saves:
        trace.saved[stage.index] = saved
    for value, y in zip(node.outputs, ys, strict=False):
        trace.values[value], trace.shapes[value] = y, y.shape


def _named(plan: Plan, node: Node, shapes: Iterable[torch.Size], error: Exception, shrink: str) -> Exception:
    """A layer's error with the layer, and what it was given, in it."""
    if isinstance(error, HostRead):
        return HostRead(error.call, node.name)
    shapes_text = ", ".join(str(list(shape)) for shape in shapes)
    layer = f"{plan.graph.origin}: layer '{node.name}' ({node.source or node.op}) on {shapes_text}"
    reason = str(error).splitlines()[0]
    if is_out_of_memory(error):
        return UnsupportedError(f"{layer}: out of memory, try {shrink}: {reason}")
    return ShapeError(f"{layer}: {reason}")


RuleOf = Callable[[Node], Rule | None]
Edges = dict[tuple[int, int], Relevance]
"""What each consumer handed to its inputs, by (node index, input index)."""


def sweep(
    plan: Plan,
    trace: Trace,
    route: Route,
    seeds: Mapping[str, Relevance],
    wanted: Iterable[str],
    *,
    negated: Collection[int] = (),
    edges: Edges | None = None,
    observer: Observer = UNOBSERVED,
) -> dict[str, Relevance]:
    """Takes `seeds` (relevance by value) down `route` and returns the relevance of the `wanted` values.

    negated: nodes that stand for their negated weights, for the contrast's second half.
    edges: filled, if it is there. Raises InputError where a wanted value gets no relevance.
    """
    with exact(plan.device, followed=any(seed.is_followed for seed in seeds.values())):
        way = Sweep(plan, trace, plan.rule, plan.non_negative, negated, observer)
        return way.run(route.nodes, seeds, wanted, edges)


@dataclass(frozen=True)
class Sweep:
    """How relevance goes down through the layers of one forward pass, or of a slice of it."""

    plan: Plan
    trace: Trace
    rule_of: RuleOf
    """The plan's rules, or others: the pycaffe face has two more backward passes."""
    non_negative: Collection[str]
    """The values that cannot be below zero."""
    negated: Collection[int] = ()
    observer: Observer = UNOBSERVED

    def run(
        self,
        nodes: Iterable[int],
        seeds: Mapping[str, Relevance],
        wanted: Iterable[str] = (),
        edges: Edges | None = None,
    ) -> dict[str, Relevance]:
        """Takes `seeds` down through `nodes`, last first; see `sweep`. To be called under `ops.modes.exact`."""
        graph = self.plan.graph
        pending: dict[str, list[Relevance]] = {value: [seed] for value, seed in seeds.items()}
        wanted = tuple(wanted)
        summed: dict[str, Relevance] = {}

        def collect(value: str) -> Relevance | None:
            parts = pending.pop(value, None)
            if parts is None:
                return summed.get(value)
            total = add(parts)
            if value in wanted:
                summed[value] = total
            return total

        for index in nodes:
            node = graph.nodes[index]
            above = [collect(value) for value in node.outputs]
            if all(rel is None for rel in above):
                continue
            below = self._down(index, node, above)
            for place, (value, rel) in enumerate(zip(node.inputs, below, strict=True)):
                if rel is not None:
                    pending.setdefault(value, []).append(rel)
                    if edges is not None:
                        edges[index, place] = rel
        for value in wanted:
            if collect(value) is None:
                raise InputError(f"{graph.origin}: no relevance reaches '{value}' from {', '.join(seeds)}")
        return summed

    def _down(self, index: int, node: Node, above: Sequence[Relevance | None]) -> Sequence[Relevance | None]:
        """The relevances of a layer's inputs from those of its outputs."""
        rule = self.rule_of(node)
        assert rule is not None  # Plan.route refused the way otherwise
        step = self._step(index, node, rule)
        try:
            below = self.observer.run("sweep", index, lambda: rule.down(step, above))
        except (RuntimeError, HostRead) as error:
            shapes = [rel.s.shape for rel in above if rel is not None]
            raise _named(self.plan, node, shapes, error, "fewer images or classes") from error
        followed = any(rel is not None and rel.is_followed for rel in above)
        if followed and any(rel is not None and not rel.is_followed for rel in below):
            raise UnsupportedError(
                f"{self.plan.graph.origin}: layer '{node.name}' ({node.source or node.op}): its rule cannot be "
                "transposed; wanted one that computes relevance by torch's functions or those of ebp_cuda.ops"
            )
        return below

    def _step(self, index: int, node: Node, rule: Rule) -> Step:
        plan, trace = self.plan, self.trace
        return Step(
            node=node,
            inputs=[trace.values[value] for value in node.inputs] if "x" in rule.needs else (),
            outputs=[trace.values[value] for value in node.outputs] if "y" in rule.needs else (),
            saved=trace.saved[index],
            params=plan.params(index),
            non_negative=[value in self.non_negative for value in node.inputs],
            shapes=[trace.shapes[value] for value in node.inputs],
            sign=-1 if index in self.negated else 1,
            linear_map=plan.linear(index),
        )


def contrastive_sweep(
    plan: Plan,
    trace: Trace,
    top: str,
    seed: Relevance,
    contrast: str,
    wanted: Sequence[str],
    negated: Collection[int] | None = None,
    observer: Observer = UNOBSERVED,
) -> dict[str, Relevance]:
    """c-MWP (paper section 3.4): what the class excites less what its negated weights excite, at `contrast`,
    carried on from there to the `wanted` values, which lie at or below it.

    negated: the layers whose weights change sign for the second half; by default `Plan.classifiers`.
    Returns the contrast's relevance too, under its name.
    """
    upper = plan.route([top], [contrast])
    flipped = plan.classifiers(top) if negated is None else negated
    # rules are linear in p: sweep -seed through the negated weights and add the two
    excited = sweep(plan, trace, upper, {top: seed}, [contrast], observer=observer)[contrast]
    inhibited = sweep(plan, trace, upper, {top: -seed}, [contrast], negated=flipped, observer=observer)[contrast]
    difference = add([excited, inhibited])
    difference = difference.with_values(difference.s, difference.x)  # computed now, for it is read twice
    lower = plan.route([contrast], wanted)
    below = sweep(plan, trace, lower, {contrast: difference}, wanted, observer=observer)
    return {contrast: difference, **below}
