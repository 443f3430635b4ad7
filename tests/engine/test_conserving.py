"""Properties of whole networks: what the conserving rules keep, and that the contrast is linear.

Networks are random (random_nets.py): convolutions with batch norm and scales, ReLU and other functions, both
poolings, LRN, inception blocks, residual sums, squeeze-and-excite gates; images signed or not, with zeros or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import sweep as oracle
from oracle.nets import (
    agreed_values,
    batch_norm,
    conv,
    distance,
    engine_contrast,
    engine_relevance,
    graph_of,
    linear,
    simple,
)
from support.random_nets import CLASSES, RandomNet, random_nets

from ebp_cuda.api import ExcitationBackprop
from ebp_cuda.engine.fold import fold
from ebp_cuda.graph import Graph, Node
from ebp_cuda.net import Net
from ebp_cuda.rules import RULE_SETS

SEVERAL = settings(max_examples=40, deadline=None, derandomize=True)
ALL = np.arange(CLASSES)


@dataclass
class Run:
    """A network, prepared for a rule set, with its activations (each image once per class) and one-hot seeds."""

    net: RandomNet
    rules: str
    graph: Graph = field(init=False)
    values: dict[str, np.ndarray] = field(init=False)
    seed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.graph = fold(self.net.graph) if self.rules == "conserving" else self.net.graph
        self.values = agreed_values(self.net.graph, self.xs, CLASSES, self.graph)
        self.seed = oracle.one_hot(self.values[self.net.top], np.tile(ALL, len(self.net.image)))

    @property
    def xs(self) -> dict[str, np.ndarray]:
        return {"image": self.net.image}

    def engine(self, *wanted: str, **more) -> dict[str, np.ndarray]:
        return engine_relevance(self.graph, self.xs, {self.net.top: self.seed}, wanted, self.rules, **more)

    def oracle(self, layer: str, contrast: str | None = None) -> np.ndarray:
        """From the network as it was drawn: the oracle folds by itself."""
        return oracle.attribute(self.net.graph, self.values, self.net.top, self.seed, layer, contrast, self.rules)


def masses(p: np.ndarray) -> np.ndarray:
    return p.reshape(len(p), -1).sum(axis=1)


@SEVERAL
@given(random_nets())
def test_probability_in_is_probability_out(net: RandomNet) -> None:
    p = Run(net, "conserving").engine("image", dtype=torch.float32)["image"]
    assert p.min() >= 0
    assert np.abs(masses(p) - 1).max() < 1e-5


@SEVERAL
@given(random_nets())
def test_conserving_network_equals_oracle(net: RandomNet) -> None:
    run = Run(net, "conserving")
    for value, p in run.engine("image", net.second).items():
        assert distance(p, run.oracle(value)) < 1e-9


@SEVERAL
@given(random_nets("caffe"))
def test_caffe_network_equals_oracle(net: RandomNet) -> None:
    run = Run(net, "caffe")
    got, wanted = run.engine("image")["image"], run.oracle("image")
    assert np.abs(got - wanted).max() <= 1e-7 * np.abs(wanted).max()  # signed normalisers magnify rounding


@SEVERAL
@given(random_nets())
def test_contrast_equals_oracle_and_the_difference_of_two_runs(net: RandomNet) -> None:
    run = Run(net, "conserving")
    wanted = ("image", net.second)
    contrast = engine_contrast(run.graph, run.xs, net.top, run.seed, net.second, wanted, run.rules)
    positive, negative = run.engine(*wanted), run.engine(*wanted, negated=[run.graph.nodes[-1].name])
    for value in wanted:
        assert np.abs(contrast[value] - (positive[value] - negative[value])).max() < 1e-12
        assert np.abs(masses(contrast[value])).max() < 1e-12
    assert np.abs(contrast["image"] - run.oracle("image", net.second)).max() < 1e-9


@SEVERAL
@given(st.sampled_from(RULE_SETS).flatmap(lambda rules: st.tuples(random_nets(rules), st.just(rules))), st.booleans())
def test_public_maps_equal_oracle(drawn: tuple[RandomNet, str], contrastive: bool) -> None:
    """ExcitationBackprop, from the image to the map summed over channels, for all classes at once."""
    net, rules = drawn
    contrast = net.second if contrastive else None
    run = Run(net, rules)
    explain = ExcitationBackprop(Net(net.graph), "image", contrast, rules, dtype="fp64")
    found = explain.run(torch.from_numpy(net.image), "all")
    wanted = run.oracle("image", contrast).sum(axis=1)
    assert found.targets.tolist() == [list(ALL)] * len(net.image)
    assert np.abs(found.maps.reshape(wanted.shape).numpy() - wanted).max() <= 1e-7 * max(1, np.abs(wanted).max())
    top = run.values[net.top]
    scores = top.reshape(*top.shape[:2], -1).max(axis=2)[::CLASSES]
    assert distance(found.scores.double().numpy(), scores) < 1e-6


@SEVERAL
@given(random_nets())
def test_contrast_changes_sign_with_the_classifier(net: RandomNet) -> None:
    run = Run(net, "conserving")
    last = run.graph.nodes[-1]
    minus = replace(last, params=dict(last.params) | {"weight": -last.params["weight"]})
    opposite = Graph([*run.graph.nodes[:-1], minus], run.graph.inputs, run.graph.outputs)
    p, q = (
        engine_contrast(graph, run.xs, net.top, run.seed, net.second, ["image"], "conserving")["image"]
        for graph in (run.graph, opposite)
    )
    assert np.abs(p + q).max() < 1e-14


@SEVERAL
@given(random_nets())
def test_relevance_is_linear_in_the_seed(net: RandomNet) -> None:
    """Classes may be carried together, and a signed seed is as good as a difference of two."""
    run = Run(net, "conserving")
    factors = np.array([1.0, -2.0, 0.5, 3.0])

    def mixed(columns: np.ndarray) -> np.ndarray:
        return np.einsum("k,nk...->n...", factors, columns.reshape(-1, CLASSES, *columns.shape[1:]))

    got = engine_relevance(run.graph, run.xs, {net.top: mixed(run.seed)}, ["image"], "conserving")["image"]
    assert np.abs(got - mixed(run.engine("image")["image"])).max() < 1e-12


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
    folded = engine_relevance(fold(graph), x, seed, ["image"], "conserving")["image"].ravel()
    copied = engine_relevance(graph, x, seed, ["image"], "caffe")["image"].ravel()
    assert folded.tolist() == [0, 1]
    assert copied.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["batch norm", "padding"])
def test_what_something_else_reads_too_is_not_folded(kind: str) -> None:
    rng = np.random.default_rng(4)
    if kind == "batch norm":
        nodes = [conv(rng, "image", "c", 2, 3, 3), batch_norm(rng, "c", "d", 3)]
    else:
        nodes = [simple("pad", "image", "p", pads=((0, 0), (0, 0), (0, 1), (1, 1)), value=0.0)]
        nodes += [conv(rng, "p", "c", 2, 3, 3), conv(rng, "p", "d", 2, 3, 3)]
    graph = graph_of([*nodes, simple("sum", ["c", "d"], "y")], image=(1, 2, 6, 6))
    x = rng.normal(size=(1, 2, 6, 6)) * (rng.random((1, 2, 6, 6)) < 0.2)
    values = oracle.forward(graph, {"image": x})
    seed = np.ones_like(values["y"])
    got = engine_relevance(fold(graph), {"image": x}, {"y": seed}, ["image"], "conserving")["image"]
    assert distance(got, oracle.attribute(graph, values, "y", seed, "image", rules="conserving")) < 1e-12


def test_padding_takes_no_probability() -> None:
    """A window that lies half in a padding spreads over the half inside, whoever padded."""
    rng = np.random.default_rng(3)
    nodes = [conv(rng, "image", "c", 1, 2, 3, padding=1), simple("flatten", "c", "f", axis=1)]
    nodes.append(linear(rng, "f", "y", 2 * 16, 3))
    graph = graph_of(nodes, image=(1, 1, 4, 4))
    for x in (np.zeros((1, 1, 4, 4)), rng.normal(size=(1, 1, 4, 4))):
        p = engine_relevance(graph, {"image": x}, {"y": np.eye(3)}, ["image"], "conserving")["image"]
        assert masses(p) == pytest.approx(np.ones(3), abs=1e-12)
