"""Weighted subtree EBP against the oracle, whose derivatives are torch's own of the module in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracle import questions as oracle
from oracle.sweep import forward
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError, UnsupportedError
from ebp_cuda.compat.xfr import weighted_subtree

LAYER = "1"


@pytest.fixture(scope="module")
def module() -> nn.Sequential:
    torch.manual_seed(1)
    stem = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    deep = [nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*stem, *deep, nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 6)).eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(2))


def method(module: nn.Sequential, x: torch.Tensor) -> ExcitationBackprop:
    return ExcitationBackprop(ebp_cuda.from_torch(module, x), LAYER, rules="conserving", dtype="fp64")


def slopes(module: nn.Sequential, x: torch.Tensor, directions: list[torch.Tensor]) -> dict[int, list[np.ndarray]]:
    """By the layer's place: the derivatives of the output along each direction by what the layer gives."""
    twin, given = copy.deepcopy(module).double(), []
    y = x.double().requires_grad_()
    for layer in twin:
        y = layer(y)
        given.append(y)
    found = [torch.autograd.grad((y * d).sum(), given, retain_graph=True) for d in directions]
    return {place: [part[place].numpy() for part in found] for place in range(len(given))}


@pytest.mark.parametrize("merge", ["sum", "max"])
@pytest.mark.parametrize("subtrees", [1, 3, 9])
@pytest.mark.parametrize("kind", ["classes", "embeddings"])
def test_it_equals_the_oracle(module, x, kind: str, subtrees: int, merge: str) -> None:
    eb, rng = method(module, x), np.random.default_rng(3)
    graph, read_by_weights = eb.net.graph, (4, 6, 10, 12)
    values = forward(graph, {next(iter(graph.inputs)): x.double().numpy()})
    top = eb.net.default_top()
    if kind == "classes":
        asked = {"target": 2, "other": 4}
        directions = [np.eye(6)[2], np.eye(6)[4]]
    else:
        mate, nonmate = np.abs(rng.normal(size=6)) + 0.1, rng.normal(size=6)
        asked = {"similarity_to": mate, "other": nonmate}
        directions = [mate, nonmate]
    result = weighted_subtree(eb, x, subtrees=subtrees, merge=merge, **asked)
    for image in range(2):
        own = {name: value[image : image + 1] for name, value in values.items()}
        seed = np.zeros_like(own[top])
        seed[:] = directions[0] if kind == "classes" else oracle.similarity_seed(own[top], mate)
        by_place = slopes(module, x[image : image + 1], [torch.from_numpy(d) for d in directions])
        at = {graph.resolve(str(place))[-1]: tuple(by_place[place]) for place in read_by_weights}
        wanted = oracle.weighted_subtree(graph, own, seed, top, graph.resolve(LAYER)[0], at, subtrees, merge=merge)
        np.testing.assert_allclose(result.maps[image].numpy(), wanted[0], rtol=0, atol=1e-10)
        assert len(result.layers[image]) == len(result.weights[image]) <= subtrees
        assert result.weights[image] == sorted(result.weights[image]) and result.weights[image][0] > 0


def test_layers_may_be_named(module, x) -> None:
    eb = method(module, x)
    assert weighted_subtree(eb, x, 2, other=4, layers=["6"]).layers == [["6"], ["6"]]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "wanted other="),
        ({"other": 4, "subtrees": 0}, "wanted 'sum' or 'max', and at least one"),
        ({"other": 4, "merge": "mean"}, "wanted 'sum' or 'max'"),
        ({"other": 4, "target": "top2"}, "wanted one class or embedding for each image"),
        ({"other": 4, "layers": ["0"]}, "none lies between the top and '1'"),
        ({"other": 1, "target": 1}, "no unit above layer '1' tells the two apart"),
    ],
)
def test_what_is_refused(module, x, asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        weighted_subtree(method(module, x), x, **asked)


def test_a_layer_without_a_derivative_is_named(x) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(128, 3)
    )
    eb = ExcitationBackprop(ebp_cuda.from_torch(net.eval(), x), "1", rules="conserving")
    with pytest.raises(UnsupportedError, match="weighted_subtree needs its derivative"):
        weighted_subtree(eb, x, 0, other=1)
