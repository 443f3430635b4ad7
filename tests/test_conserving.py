"""Properties of whole networks: what the conserving rules keep, and that the contrast is linear.

Networks are random (random_nets.py): convolutions with batch norm and scales, ReLU and other functions, both
poolings, LRN, inception blocks, residual sums, squeeze-and-excite gates; images signed or not, with zeros or not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle_nets import conv, distance, engine_contrast, engine_relevance, graph_of, linear, simple
from random_nets import CLASSES, RandomNet, random_nets

from ebp_cuda.api import ExcitationBackprop
from ebp_cuda.fold import fold_affine
from ebp_cuda.graph import Graph, Node
from ebp_cuda.net import Net
from ebp_cuda.rules import RULE_SETS

SEVERAL = settings(max_examples=40, deadline=None, derandomize=True)
ALL = np.arange(CLASSES)
NOT_IN_CAFFE = ("mul", "resize")


def every_class(net: RandomNet, graph: Graph) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """The oracle's activations with each image once per class, a one-hot seed per copy, the engine's input."""
    values = oracle.forward(graph, {"image": np.repeat(net.image, CLASSES, axis=0)})
    seed = oracle.one_hot(values[net.top], np.tile(ALL, len(net.image)))
    return values, seed, {"image": net.image}


def masses(p: np.ndarray) -> np.ndarray:
    return p.reshape(len(p), -1).sum(axis=1)


@SEVERAL
@given(random_nets())
def test_probability_in_is_probability_out(net: RandomNet) -> None:
    graph = fold_affine(net.graph)
    _, seed, xs = every_class(net, graph)
    p = engine_relevance(graph, xs, {net.top: seed}, ["image"], "conserving", dtype=torch.float32)["image"]
    assert p.min() >= 0
    assert np.abs(masses(p) - 1).max() < 1e-5


@SEVERAL
@given(random_nets())
def test_conserving_network_equals_oracle(net: RandomNet) -> None:
    """The oracle folds by itself, from the unfolded network."""
    values, seed, xs = every_class(net, net.graph)
    wanted = oracle.relevance(net.graph, values, {net.top: seed}, "conserving")
    folded = fold_affine(net.graph)
    kept = [v for v in ("image", net.second) if v in wanted]
    got = engine_relevance(folded, xs, {net.top: seed}, kept, "conserving")
    for value in kept:
        assert distance(got[value], wanted[value]) < 1e-9


@SEVERAL
@given(random_nets())
def test_caffe_network_equals_oracle(net: RandomNet) -> None:
    assume(not any(node.op in NOT_IN_CAFFE for node in net.graph.nodes))
    net.image[:] = np.abs(net.image)
    values, seed, xs = every_class(net, net.graph)
    wanted = oracle.relevance(net.graph, values, {net.top: seed}, "caffe")["image"]
    got = engine_relevance(net.graph, xs, {net.top: seed}, ["image"], "caffe")["image"]
    if np.abs(wanted).max() > 0:
        assert distance(got, wanted) < 1e-7  # a signed normaliser near 0 magnifies rounding


@SEVERAL
@given(random_nets())
def test_contrast_equals_oracle_and_the_difference_of_two_runs(net: RandomNet) -> None:
    graph = fold_affine(net.graph)
    classifier = graph.nodes[-1].name
    _, seed, xs = every_class(net, graph)
    contrast = engine_contrast(graph, xs, net.top, seed, net.second, ["image", net.second], "conserving")
    repeated = {"image": np.repeat(net.image, CLASSES, axis=0)}
    wanted = oracle.attribute(net.graph, repeated, net.top, seed, "image", net.second, "conserving")
    halves = [
        engine_relevance(graph, xs, {net.top: seed}, ["image", net.second], "conserving", negated=negated)
        for negated in ((), (classifier,))
    ]
    for value in ("image", net.second):
        difference = halves[0][value] - halves[1][value]
        assert np.abs(contrast[value] - difference).max() < 1e-12
        assert np.abs(masses(contrast[value])).max() < 1e-12
    assert np.abs(contrast["image"] - wanted).max() < 1e-9


@SEVERAL
@given(random_nets(), st.sampled_from(RULE_SETS), st.booleans())
def test_public_maps_equal_oracle(net: RandomNet, rules: str, contrastive: bool) -> None:
    """ExcitationBackprop, from the image to the map summed over channels, for all classes at once."""
    if rules == "caffe":
        assume(not any(node.op in NOT_IN_CAFFE for node in net.graph.nodes))
        net.image[:] = np.abs(net.image)
    contrast = net.second if contrastive else None
    found = ExcitationBackprop(Net(net.graph), "image", contrast, rules, dtype="fp64").run(net.image, "all")
    values, seed, _ = every_class(net, net.graph)
    repeated = {"image": np.repeat(net.image, CLASSES, axis=0)}
    wanted = oracle.attribute(net.graph, repeated, net.top, seed, "image", contrast, rules).sum(axis=1)
    maps = found.maps.reshape(wanted.shape).numpy()
    assert found.targets.tolist() == [list(ALL)] * len(net.image)
    assert np.abs(maps - wanted).max() <= 1e-7 * max(1, np.abs(wanted).max())
    scores = values[net.top].reshape(*values[net.top].shape[:2], -1).max(axis=2)[::CLASSES]
    assert distance(found.scores.double().numpy(), scores) < 1e-6


@SEVERAL
@given(random_nets())
def test_contrast_changes_sign_with_the_classifier(net: RandomNet) -> None:
    graph = fold_affine(net.graph)
    _, seed, xs = every_class(net, graph)
    last = graph.nodes[-1]
    minus = replace(last, params=dict(last.params) | {"weight": -last.params["weight"]})
    opposite = Graph([*graph.nodes[:-1], minus], graph.inputs, graph.outputs)
    p, q = (
        engine_contrast(one, xs, net.top, seed, net.second, ["image"], "conserving")["image"]
        for one in (graph, opposite)
    )
    assert np.abs(p + q).max() < 1e-14


@SEVERAL
@given(random_nets())
def test_relevance_is_linear_in_the_seed(net: RandomNet) -> None:
    """Classes may be carried together, and a signed seed is as good as a difference of two."""
    graph = fold_affine(net.graph)
    _, seed, xs = every_class(net, graph)
    columns = seed.reshape(len(net.image), CLASSES, *seed.shape[1:])
    mix = (columns * np.array([1.0, -2.0, 0.5, 3.0]).reshape(1, -1, *[1] * (seed.ndim - 1))).sum(axis=1)
    p = engine_relevance(graph, xs, {net.top: seed}, ["image"], "conserving")["image"]
    p = p.reshape(len(net.image), CLASSES, *p.shape[1:])
    wanted = p[:, 0] - 2 * p[:, 1] + 0.5 * p[:, 2] + 3 * p[:, 3]
    got = engine_relevance(graph, xs, {net.top: mix}, ["image"], "conserving")["image"]
    assert np.abs(got - wanted).max() < 1e-12


def test_silent_neurons_spread_their_probability_over_their_window() -> None:
    """No excitation anywhere: a 3x3 window at the corner holds 4 pixels of the image, and each takes a quarter."""
    rng = np.random.default_rng(1)
    layer = conv(rng, "image", "y", 2, 1, 3, padding=1)
    seed = np.zeros((1, 1, 3, 3))
    seed[0, 0, 0, 0] = 1
    graph, black = graph_of([layer], image=(1, 2, 3, 3)), {"image": np.zeros((1, 2, 3, 3))}
    p = engine_relevance(graph, black, {"y": seed}, ["image"], "conserving")
    wanted = np.zeros((1, 2, 3, 3))
    wanted[0, :, :2, :2] = 1 / 8
    assert np.allclose(p["image"], wanted, atol=1e-15)


def test_folding_takes_the_gain_into_the_excitatory_part() -> None:
    """A negative gain turns an inhibitory weight into an excitatory one: p follows the folded weights."""
    layer = conv(np.random.default_rng(2), "image", "c", 2, 1, 1, bias=False)
    layer.params["weight"][:] = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    scale = Node("scale", "affine", ("c",), ("y",), {}, {"scale": torch.tensor([[[-2.0]]], dtype=torch.float64)})
    graph = graph_of([layer, scale], image=(1, 2, 1, 1))
    x, seed = {"image": np.ones((1, 2, 1, 1))}, {"y": np.ones((1, 1, 1, 1))}
    folded = engine_relevance(fold_affine(graph), x, seed, ["image"], "conserving")["image"].ravel()
    copied = engine_relevance(graph, x, seed, ["image"], "caffe")["image"].ravel()
    assert folded.tolist() == [0, 1]
    assert copied.tolist() == [1, 0]


def test_padding_takes_no_probability() -> None:
    """A window that lies half in a padding spreads over the half inside, whoever padded."""
    rng = np.random.default_rng(3)
    nodes = [conv(rng, "image", "c", 1, 2, 3, padding=1), simple("flatten", "c", "f", axis=1)]
    nodes.append(linear(rng, "f", "y", 2 * 16, 3))
    graph = graph_of(nodes, image=(1, 1, 4, 4))
    for x in (np.zeros((1, 1, 4, 4)), rng.normal(size=(1, 1, 4, 4))):
        p = engine_relevance(graph, {"image": x}, {"y": np.eye(3)}, ["image"], "conserving")["image"]
        assert masses(p) == pytest.approx(np.ones(3), abs=1e-12)
