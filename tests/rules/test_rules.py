"""Every rule of the engine, in float64, against the dense-matrix oracle.

Each layer of rule_cases.py is tried on signed inputs and on small integers (exact zeros, ties, empty normalisers),
alone and below a linear layer, where the engine carries the relevance as a product, of the layer's own output or of
another value; and behind a ReLU, where it knows the signs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import sweep as oracle
from oracle.nets import agreed_values, conv, distance, engine_relevance, graph_of, simple
from support.rule_cases import IMAGES, Case
from support.rule_graphs import CASES, GIVEN, NOT_IN_CAFFE, RULED, graph_around, inputs_of
from torch import nn

import ebp_cuda
from ebp_cuda.errors import UnsupportedError
from ebp_cuda.graph import Graph, Node
from ebp_cuda.rules import OPERATIONS, RULE_SETS, Saved

CLASSES = 3
TOLERANCE = 1e-9


def compare(graph: Graph, xs: dict[str, np.ndarray], seeds: dict, rules: str, classes: int, **more) -> None:
    values = agreed_values(graph, xs, classes)
    wanted = oracle.relevance(graph, values, seeds, rules, **more)
    reached = [name for name in xs if np.any(wanted[name])]
    got = engine_relevance(graph, xs, seeds, reached, rules, **more)
    for name in reached:
        assert distance(got[name], wanted[name]) < TOLERANCE, name


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("case", "rules"), RULED)
def test_rule_equals_oracle(case: Case, given: str, rules: str) -> None:
    rng = np.random.default_rng(7)
    graph = graph_around(case, given, rng)
    xs = inputs_of(case, given, rng)
    values = oracle.forward(graph, xs)
    seeds = {v: rng.normal(size=(IMAGES * CLASSES, *values[v].shape[1:])) for v in graph.outputs}
    compare(graph, xs, seeds, rules, CLASSES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_equals_oracle(case: Case) -> None:
    rng = np.random.default_rng(8)
    xs = inputs_of(case, "signed", rng)
    graph = graph_around(case, "signed", rng)
    wanted = oracle.forward(graph, xs)
    params = {k: v.double() for k, v in case.node.params.items()}
    tensors = [torch.from_numpy(xs[v]) for v in case.node.inputs]
    ys = OPERATIONS[case.node.op].forward(case.node, params, tensors, Saved())
    for value, y in zip(case.node.outputs, ys, strict=True):
        assert distance(y.numpy(), wanted[value]) < TOLERANCE


@pytest.mark.parametrize("rules", RULE_SETS)
@pytest.mark.parametrize("op", ["conv", "linear", "conv_transpose"])
def test_negated_weights_equal_oracle(op: str, rules: str) -> None:
    """The contrast's second half: W- where W+ was, normaliser included."""
    rng = np.random.default_rng(9)
    for case in (case for case in CASES if case.node.op == op):
        graph, xs = graph_around(case, "signed", rng), inputs_of(case, "signed", rng)
        values = oracle.forward(graph, xs)
        seeds = {"y": rng.normal(size=(IMAGES, *values["y"].shape[1:]))}
        compare(graph, xs, seeds, rules, 1, negated=[case.node.name])


@pytest.mark.parametrize("rules", RULE_SETS)
def test_one_output_of_a_split_is_enough(rules: str) -> None:
    rng = np.random.default_rng(10)
    node = Node("n", "split", ("a",), ("y", "z"), {"axis": 1, "sizes": (2, 3)})
    graph = Graph([node], {"a": ()}, ("y", "z"))
    compare(graph, {"a": rng.normal(size=(2, 5, 3, 3))}, {"z": rng.normal(size=(4, 3, 3, 3))}, rules, 2)


@pytest.mark.parametrize("rules", RULE_SETS)
def test_a_value_with_several_readers_adds_what_they_hand_back(rules: str) -> None:
    rng = np.random.default_rng(11)
    nodes = [
        simple("relu", "a", "b"),
        conv(rng, "b", "c", 3, 4, 1),
        simple("max_pool", "b", "d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), padding_end=(1, 1), dilation=(1, 1)),
        simple("concat", [*"bcd"], "y", axis=1),
    ]
    graph = graph_of(nodes, a=(1, 3, 4, 5))
    compare(graph, {"a": rng.normal(size=(2, 3, 4, 5))}, {"y": rng.normal(size=(4, 10, 4, 5))}, rules, 2)


@pytest.mark.parametrize(
    "view",
    [
        simple("identity", "b", "c"),
        simple("slice", "b", "c", axes=(1,), starts=(0,), ends=(4,), steps=(1,)),
        simple("reshape", "b", "c", shape=(0, 4, 5, 4)),
    ],
    ids=lambda node: node.op,
)
def test_relu_does_not_write_over_what_a_view_still_shows(view: Node) -> None:
    """A value that was handed on as it is shares memory with the one that a ReLU reads last."""
    rng = np.random.default_rng(12)
    nodes = [conv(rng, "a", "b", 3, 4, 1), view, simple("relu", "b", "r"), simple("sum", ["c", "r"], "y")]
    graph = graph_of(nodes, a=(1, 3, 5, 4))
    compare(graph, {"a": rng.normal(size=(1, 3, 5, 4))}, {"y": np.ones((1, 4, 5, 4))}, "caffe", 1)


@pytest.mark.parametrize("op", NOT_IN_CAFFE)
def test_what_the_original_has_no_rule_for_is_refused(op: str) -> None:
    case = next(case for case in CASES if case.node.op == op)
    rng = np.random.default_rng(13)
    graph, xs = graph_around(case, "signed", rng), inputs_of(case, "signed", rng)
    seed = np.ones_like(oracle.forward(graph, xs)["y"])
    with pytest.raises(UnsupportedError, match=rf"'caffe' rule for '{case.node.name}' \({op}\).*conserving"):
        engine_relevance(graph, xs, {"y": seed}, ["a"], "caffe")


def test_every_operation_has_a_case() -> None:
    assert set(OPERATIONS) - {case.node.op for case in CASES} == set()


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_every_operation_has_a_conserving_rule(op: str) -> None:
    assert "conserving" in OPERATIONS[op].rules


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_activations_below_the_smallest_normal_number_give_finite_maps(rules: str) -> None:
    """p / z overflowed where z was denormal, and inf * 0 made the map NaN."""
    x = torch.full((1, 1, 6, 6), 2.0**-140)
    x[:, :, 0, 0] = 0
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    net = ebp_cuda.from_torch(module, x)
    method = ebp_cuda.ExcitationBackprop(net, next(iter(net.graph.inputs)), rules=rules)
    assert method.relevance(x, 0).isfinite().all()
