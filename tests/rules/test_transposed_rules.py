"""Every rule taken upwards: autograd's way through it is the transpose of the sweep, <w, A s> = <A^T w, s>.

The sweep on the right is an ordinary one, of another seed, which autograd does not follow.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import sweep as oracle
from support.rule_cases import IMAGES, Case
from support.rule_graphs import RULED, graph_around, inputs_of

from ebp_cuda.engine import forward, sweep
from ebp_cuda.engine.plan import Plan
from ebp_cuda.graph import Graph
from ebp_cuda.rules.relevance import Relevance

COLUMNS = 2
GIVEN = ("integers", "scaled", "relu linear")


def swept(plan: Plan, trace, seeds: dict[str, torch.Tensor], wanted: list[str]) -> dict[str, torch.Tensor]:
    route = plan.route(list(seeds), wanted)
    below = sweep(plan, trace, route, {value: Relevance(seed) for value, seed in seeds.items()}, wanted)
    return {value: rel.p() for value, rel in below.items()}


def reached(graph: Graph, xs: dict[str, np.ndarray], rules: str) -> list[str]:
    """The inputs that some relevance arrives at; a mask or a size gets none."""
    values = oracle.forward(graph, xs)
    ones = {value: np.ones_like(values[value]) for value in graph.outputs}
    below = oracle.relevance(graph, values, ones, rules)
    return [name for name in xs if np.any(below[name])]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("case", "rules"), RULED)
def test_the_way_up_is_the_transpose_of_the_way_down(case: Case, given: str, rules: str) -> None:
    rng = np.random.default_rng(12)
    graph, xs = graph_around(case, given, rng), inputs_of(case, given, rng)
    wanted = reached(graph, xs, rules)
    if not wanted:
        return  # a staircase has no slope, and a mask no part in a sum: no way down, and none up
    plan = Plan(graph, rules, torch.device("cpu"), torch.float64)
    tensors = {name: torch.from_numpy(np.asarray(x, np.float64)) for name, x in xs.items()}
    route = plan.route(list(graph.outputs), wanted)
    trace = forward(plan, tensors, route.keep | set(graph.outputs), route.nodes)

    def drawn(sign: float = 0.0) -> dict[str, torch.Tensor]:
        shapes = {v: (IMAGES * COLUMNS, *trace.shapes[v][1:]) for v in graph.outputs}
        return {v: torch.from_numpy(rng.normal(size=shape) + sign) for v, shape in shapes.items()}

    followed = {value: seed.requires_grad_() for value, seed in drawn(3.0).items()}
    below = swept(plan, trace, followed, wanted)
    weights = {name: torch.from_numpy(rng.normal(size=p.shape)) for name, p in below.items()}
    total = sum((below[name] * weights[name]).sum() for name in wanted)
    up = torch.autograd.grad(total, list(followed.values()), allow_unused=True)

    other = drawn()
    plain = swept(plan, trace, other, wanted)
    left = sum((plain[name] * weights[name]).sum() for name in wanted)
    right = sum((u * other[value]).sum() for u, value in zip(up, followed, strict=True) if u is not None)
    size = sum((plain[name] * weights[name]).abs().sum() for name in wanted)
    assert abs(float(left - right)) <= 1e-10 * float(size)
    assert not any(p.requires_grad for p in plain.values())
