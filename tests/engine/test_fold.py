"""What folding may join: the forward stays the same, and in "conserving" no probability ends on padding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda.engine.fold import fold

KERAS = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.Conv2d(6, 4, 3), nn.ReLU())
AVERAGE = nn.Sequential(
    nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.AvgPool2d(3, 2), nn.Conv2d(6, 4, 3), nn.ReLU()
)
SAME = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 4, 3, 2), nn.ReLU())
SIGNED = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.Conv2d(6, 4, 3), nn.ReLU())
NORM = nn.Sequential(
    nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU()
)


def network(body: nn.Sequential) -> nn.Module:
    torch.manual_seed(5)
    head = (nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    module = nn.Sequential(*copy.deepcopy(body), *head)
    x = torch.randn(2, 3, 13, 15)
    module.train()(x)  # gives the lazy layer its size and the batch norms statistics of their own
    for layer in module:
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return module.eval()


@pytest.mark.parametrize("body", [KERAS, AVERAGE, SAME, SIGNED, NORM], ids=["max", "average", "same", "signed", "norm"])
def test_folding_keeps_the_forward(body):
    module, x = network(body), torch.randn(2, 3, 13, 15)
    graph = ebp_cuda.from_torch(module, x).graph
    folded = ebp_cuda.Net(fold(graph))
    assert not any(node.op == "batch_norm" for node in folded.graph.nodes)
    torch.testing.assert_close(next(iter(folded.forward(x).values())), module(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("body", [KERAS, AVERAGE, SAME, NORM], ids=["max", "average", "same", "norm"])
def test_no_probability_ends_on_padding(body):
    module, x = network(body), torch.randn(2, 3, 13, 15)
    net = ebp_cuda.from_torch(module, x)
    maps = ebp_cuda.ExcitationBackprop(net, next(iter(net.graph.inputs)), rules="conserving").attribute(x, "all")
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 3), rtol=0, atol=1e-5)


def test_padding_that_could_win_stays():
    """A zero may beat a negative value, so the pool behind a signed value keeps its padding node."""
    ops = [node.op for node in fold(ebp_cuda.from_torch(network(SIGNED), torch.randn(2, 3, 13, 15)).graph).nodes]
    assert "pad" in ops


def test_names_of_folded_layers_stay():
    net = ebp_cuda.from_torch(network(NORM), torch.randn(2, 3, 13, 15))
    folded = fold(net.graph)
    assert set(net.graph.names) <= set(folded.names)
    assert folded.resolve("0") == folded.resolve("1")


def test_the_given_weights_are_not_touched():
    module = network(NORM)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fold(ebp_cuda.from_torch(module, torch.randn(2, 3, 13, 15)).graph)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
