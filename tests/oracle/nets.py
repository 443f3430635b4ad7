"""Nodes and small graphs for the tests against the oracle, and the engine run in the oracle's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ebp_cuda.engine import contrastive_sweep, forward, sweep
from ebp_cuda.engine.plan import Plan
from ebp_cuda.graph import Graph, Node
from ebp_cuda.rules.relevance import Relevance
from oracle import sweep as oracle
from oracle.matrices import Array


def pair(value: int | Sequence[int], axes: int = 2) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def window(kernel, stride=1, padding=0, padding_end=None, dilation=1, axes: int = 2) -> dict:
    """Attributes of a convolution or pooling; one number stands for all axes."""
    before = pair(padding, axes)
    return {
        "kernel": pair(kernel, axes),
        "stride": pair(stride, axes),
        "padding": before,
        "padding_end": before if padding_end is None else pair(padding_end, axes),
        "dilation": pair(dilation, axes),
    }


def weights(rng: np.random.Generator, *shape: int, zeros: float = 0.1) -> torch.Tensor:
    """Normal weights, some of them exactly 0."""
    values = rng.normal(size=shape) * (rng.random(shape) >= zeros)
    return torch.from_numpy(values)


def conv(rng, x, y, channels, out, kernel, groups=1, bias=True, name="", **geometry) -> Node:
    kernel = pair(kernel)
    params = {"weight": weights(rng, out, channels // groups, *kernel)}
    if bias:
        params["bias"] = weights(rng, out)
    attrs = window(kernel, **geometry, axes=len(kernel)) | {"groups": groups}
    attrs.pop("kernel")
    return Node(name or f"conv_{y}", "conv", (x,), (y,), attrs, params)


def linear(rng, x, y, features, out, bias=True, name="") -> Node:
    params = {"weight": weights(rng, out, features)}
    if bias:
        params["bias"] = weights(rng, out)
    return Node(name or f"linear_{y}", "linear", (x,), (y,), {}, params)


def batch_norm(rng, x, y, channels) -> Node:
    """Statistics and a learnt scale of either sign."""
    params = {"mean": weights(rng, channels), "var": torch.from_numpy(rng.random(channels) + 0.2)}
    params |= {"weight": weights(rng, channels, zeros=0), "bias": weights(rng, channels)}
    return Node(f"bn_{y}", "batch_norm", (x,), (y,), {"eps": 1e-3}, params)


def simple(op: str, xs: str | Sequence[str], y: str, **attrs) -> Node:
    xs = (xs,) if isinstance(xs, str) else tuple(xs)
    return Node(f"{op}_{y}", op, xs, (y,), attrs)


def graph_of(nodes: list[Node], **inputs: Sequence[int]) -> Graph:
    return Graph(nodes, {name: (None, *shape[1:]) for name, shape in inputs.items()}, nodes[-1].outputs)


def engine_relevance(
    graph: Graph,
    inputs: Mapping[str, Array],
    seeds: Mapping[str, Array],
    wanted: Sequence[str],
    rules: str,
    negated: Sequence[str] = (),
    dtype: torch.dtype = torch.float64,
) -> dict[str, Array]:
    """p of the wanted values by the engine, [N*K, ...] each; seeds are [N*K, ...], image-major."""
    plan = Plan(graph, rules, torch.device("cpu"), dtype)
    route = plan.route(list(seeds), wanted)
    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in inputs.items()}
    trace = forward(plan, tensors, route.keep | set(seeds), route.nodes)
    tops = {value: Relevance(torch.from_numpy(seed).to(dtype)) for value, seed in seeds.items()}
    layers = {i for i, node in enumerate(graph.nodes) if node.name in negated}
    found = sweep(plan, trace, route, tops, wanted, negated=layers)
    return {value: rel.p().double().numpy() for value, rel in found.items()}


def distance(got: Array, wanted: Array) -> float:
    """Largest difference, in units of the largest wanted value."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    assert np.isfinite(got).all()
    return float(np.abs(got - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-30))


def agreed_values(
    graph: Graph, inputs: Mapping[str, Array], classes: int, folded: Graph | None = None
) -> dict[str, Array]:
    """Every activation with each image once per class, equal in the oracle and in the engine; the engine's bits.

    Rounding may break a tie between two maxima either way, and let a sum cancel or not: for the rules to be
    comparable both sides must see the same numbers. `folded`: the graph as the engine runs it, where that differs.
    """
    values = oracle.forward(graph, {name: np.repeat(x, classes, axis=0) for name, x in inputs.items()})
    plan = Plan(folded or graph, "conserving", torch.device("cpu"), torch.float64)
    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in inputs.items()}
    for name, x in forward(plan, tensors, set(plan.graph.producer)).values.items():
        engines = np.repeat(x.numpy(), classes, axis=0)
        assert distance(engines, values[name]) < 1e-9
        values[name] = engines
    return values


def engine_contrast(
    graph: Graph,
    inputs: Mapping[str, Array],
    top: str,
    seed: Array,
    contrast: str,
    wanted: Sequence[str],
    rules: str,
) -> dict[str, Array]:
    """c-MWP of the wanted values by the engine, float64, [N*K, ...] each."""
    plan = Plan(graph, rules, torch.device("cpu"), torch.float64)
    route = plan.route([top], wanted)
    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in inputs.items()}
    trace = forward(plan, tensors, route.keep | {top}, route.nodes)
    found = contrastive_sweep(plan, trace, top, Relevance(torch.from_numpy(seed)), contrast, wanted)
    return {value: rel.p().numpy() for value, rel in found.items()}
