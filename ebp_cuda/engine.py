"""The two passes: forward, keeping what the way down needs, and the top-down sweep. Nothing else lives here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import InputError, ShapeError
from .plan import Plan, Route, operation_of
from .relevance import Relevance, add
from .rules import Step


@dataclass
class Trace:
    """What one forward pass left behind for the sweeps over it."""

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    """Kept activations by value name, [N, ...]."""
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    """Shape of every value that was computed."""
    saved: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By node: winner codes from the forward, normalisers from the first sweep."""


def forward(
    plan: Plan, inputs: Mapping[str, torch.Tensor], keep: Collection[str], visited: Collection[int] = ()
) -> Trace:
    """Computes the values in `keep` and drops every other one as soon as its last reader has run.

    `visited`: nodes that a sweep will visit, whose winner codes and the like are kept too.
    """
    graph, trace = plan.graph, Trace()
    needed = sorted(graph.ancestors(keep))
    readers = Counter(value for index in needed for value in graph.nodes[index].inputs)
    left = Counter(readers)
    for name, tensor in inputs.items():
        trace.values[name], trace.shapes[name] = _place(plan, tensor), tensor.shape
    with torch.no_grad():
        for index in needed:
            _run(plan, trace, index, _may_overwrite(plan, index, keep, readers))
            for value in graph.nodes[index].inputs:
                left[value] -= 1
                if left[value] == 0 and value not in keep:
                    trace.values.pop(value, None)
            if index not in visited:
                trace.saved.pop(index)
    return trace


def _place(plan: Plan, tensor: torch.Tensor) -> torch.Tensor:
    placed = tensor.detach().to(plan.device, plan.dtype)
    return placed.contiguous(memory_format=torch.channels_last) if placed.dim() == 4 else placed.contiguous()


def _run(plan: Plan, trace: Trace, index: int, overwrite: bool) -> None:
    graph, node = plan.graph, plan.graph.nodes[index]
    xs = [trace.values[value] for value in node.inputs]
    saved = trace.saved[index] = {"overwrite": overwrite}
    try:
        ys = operation_of(graph, node).forward(node, plan.params(index), xs, saved)
    except RuntimeError as error:
        shapes = ", ".join(str(list(x.shape)) for x in xs)
        reason = str(error).splitlines()[0]
        layer = f"{graph.origin}: layer '{node.name}' ({node.source or node.op})"
        raise ShapeError(f"{layer} on {shapes}: {reason}") from error
    for value, y in zip(node.outputs, ys, strict=False):
        trace.values[value], trace.shapes[value] = y, y.shape


_OWN_OUTPUT = frozenset(("conv", "conv_transpose", "linear", "batch_norm", "sum"))


def _may_overwrite(plan: Plan, index: int, keep: Collection[str], readers: Mapping[str, int]) -> bool:
    """Whether nobody else will ever look at the memory of the node's first input: it is the only reader of a value
    that its producer made afresh (a view of that memory would have been a reader too)."""
    node = plan.graph.nodes[index]
    if not operation_of(plan.graph, node).overwrites or node.inputs[0] in keep or readers[node.inputs[0]] > 1:
        return False
    producer = plan.graph.producer.get(node.inputs[0])
    return producer is not None and plan.graph.nodes[producer].op in _OWN_OUTPUT


def sweep(
    plan: Plan,
    trace: Trace,
    route: Route,
    seeds: Mapping[str, Relevance],
    wanted: Iterable[str],
    *,
    negated: Collection[int] = (),
    edges: dict[tuple[int, int], Relevance] | None = None,
) -> dict[str, Relevance]:
    """Carries `seeds` (relevance by value) down `route` and returns the relevance of the `wanted` values.

    negated: nodes that stand for their negated weights, for the contrast's second half.
    edges: filled with what each consumer handed to its inputs, by (node index, input index).
    Raises InputError where a wanted value gets no relevance.
    """
    pending: dict[str, list[Relevance]] = {value: [seed] for value, seed in seeds.items()}
    wanted = tuple(wanted)
    found: dict[str, Relevance] = {}

    def collect(value: str) -> Relevance | None:
        parts = pending.pop(value, None)
        if parts is None:
            return found.get(value)
        total = add(parts)
        if value in wanted:
            found[value] = total
        return total

    with torch.no_grad():
        for index in route.nodes:
            node = plan.graph.nodes[index]
            above = [collect(value) for value in node.outputs]
            if all(rel is None for rel in above):
                continue
            step = _step(plan, trace, index, -1 if index in negated else 1)
            rule = plan.rule(node)
            assert rule is not None  # Plan.route refused the way otherwise
            for place, (value, rel) in enumerate(zip(node.inputs, rule.down(step, above), strict=True)):
                if rel is not None:
                    pending.setdefault(value, []).append(rel)
                    if edges is not None:
                        edges[index, place] = rel
        for value in wanted:
            if collect(value) is None:
                raise InputError(f"{plan.graph.origin}: no relevance reaches '{value}' from {', '.join(seeds)}")
    return found


def _step(plan: Plan, trace: Trace, index: int, sign: int) -> Step:
    node, rule = plan.graph.nodes[index], plan.rule(plan.graph.nodes[index])
    assert rule is not None
    return Step(
        node=node,
        inputs=[trace.values[value] for value in node.inputs] if "x" in rule.needs else (),
        outputs=[trace.values[value] for value in node.outputs] if "y" in rule.needs else (),
        saved=trace.saved[index],
        params=plan.params(index),
        packed=plan.packer(index),
        non_negative=[value in plan.non_negative for value in node.inputs],
        shapes=[trace.shapes[value] for value in node.inputs],
        sign=sign,
    )


def contrastive_sweep(
    plan: Plan,
    trace: Trace,
    top: str,
    seed: Relevance,
    contrast: str,
    wanted: Sequence[str],
) -> dict[str, Relevance]:
    """c-MWP (paper section 3.4): what the class excites less what its negated weights excite, at `contrast`,
    carried on from there to the `wanted` values, which lie at or below it."""
    upper = plan.route([top], [contrast])
    halves = [
        sweep(plan, trace, upper, {top: seed}, [contrast], negated=negated)[contrast]
        for negated in ((), plan.classifiers(top))
    ]
    difference = halves[0] - halves[1]
    lower = plan.route([contrast], wanted)
    return sweep(plan, trace, lower, {contrast: difference}, wanted)
