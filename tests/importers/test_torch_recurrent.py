"""LSTM, GRU and RNN of torch: unrolled, torch's own values, and the oracle's relevance on every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import sweep as oracle
from oracle.nets import distance, engine_relevance
from support.torch_modules import Fn
from torch import nn

import ebp_cuda
from ebp_cuda.importers.torch import from_module
from ebp_cuda.importers.torch.recurrent import MAX_STEPS
from ebp_cuda.net import Net

KINDS = [nn.LSTM, nn.GRU, nn.RNN]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
    {"num_layers": 2, "dropout": 0.5},
]


def classifier(kind: type[nn.Module], **options: Any) -> nn.Module:
    """Reads [N, T, 4] and gives [N, 3], from the states of all steps."""
    layer = kind(4, 5, batch_first=True, **options)
    wide = 10 if options.get("bidirectional") else 5
    return Fn(lambda m, x: m.head(m.recurrent(x)[0].mean(1)), recurrent=layer, head=nn.Linear(wide, 3)).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 6])
def test_values_are_those_of_torch_and_relevance_that_of_the_oracle(
    kind: type[nn.Module], options: dict[str, Any], steps: int
) -> None:
    module, x = classifier(kind, **options), torch.randn(2, steps, 4)
    graph = from_module(module, x)
    (name,) = graph.inputs
    with torch.no_grad():
        torch.testing.assert_close(Net(graph).forward(x)[graph.outputs[0]], module(x))
    images = {name: x.double().numpy()}
    values = oracle.forward(graph, images)
    seeds = {graph.outputs[0]: np.random.default_rng(0).random((2, 3))}
    expected = oracle.relevance(graph, values, seeds, "conserving")[name]
    assert distance(engine_relevance(graph, images, seeds, [name], "conserving")[name], expected) < 1e-9
    assert expected.sum() == pytest.approx(seeds[graph.outputs[0]].sum())


def test_the_share_of_a_step_is_that_of_one_layer_over_input_and_hidden_state() -> None:
    """Two steps by hand, all numbers positive: h2 = tanh(W x2 + U tanh(W x1))."""
    torch.manual_seed(1)
    layer = nn.RNN(3, 4, batch_first=True, bias=False).double()
    for weight in layer.parameters():
        weight.data = weight.data.abs()
    x = torch.rand(1, 2, 3, dtype=torch.float64)
    net = ebp_cuda.from_torch(Fn(lambda m, x: m.layer(x)[0][:, 1], layer=layer).eval(), x)
    (name,) = net.graph.inputs
    relevance = ebp_cuda.ExcitationBackprop(net, layer=name, contrast_layer=None, dtype="fp64").relevance(x, 2)
    w, u = layer.weight_ih_l0.detach(), layer.weight_hh_l0.detach()
    h1 = (x[0, 0] @ w.T).tanh()
    z2 = w[2] @ x[0, 1] + u[2] @ h1
    of_h1 = h1 * u[2] / z2
    of_x1 = x[0, 0] * (w.T @ (of_h1 / (w @ x[0, 0])))
    torch.testing.assert_close(relevance[0, 0], torch.stack([of_x1, x[0, 1] * w[2] / z2]))


def test_relevance_finds_the_step_that_decides() -> None:
    """A GRU in a network with a convolution over time: the maps are [N, K, T]."""
    torch.manual_seed(0)
    module = Fn(
        lambda m, x: m.head(m.recurrent(m.conv(x).relu().transpose(1, 2))[0][:, -1]),
        conv=nn.Conv1d(2, 6, 3, padding=1),
        recurrent=nn.GRU(6, 5, batch_first=True),
        head=nn.Linear(5, 3),
    ).eval()
    x = torch.randn(2, 2, 8)
    eb = ebp_cuda.ExcitationBackprop(module, example=x, layer="conv", contrast_layer=None)
    assert tuple(eb.attribute(x, [0, 1]).shape) == (2, 1, 8)


@pytest.mark.parametrize(
    ("layer", "call", "shape", "reason"),
    [
        (nn.LSTM(4, 5), lambda m, x: m.layer(x)[0], (2, 6, 4), "batch_first=True"),
        (nn.LSTM(4, 5, proj_size=2, batch_first=True), lambda m, x: m.layer(x)[0], (2, 6, 4), "proj_size"),
        (nn.GRU(4, 5, batch_first=True), lambda m, x: m.layer(x, x[None, :, 0, :1].expand(1, -1, 5).contiguous())[0],
         (2, 6, 4), "does not start from zeros"),
        (nn.RNN(4, 5, batch_first=True), lambda m, x: m.layer(x)[0], (2, MAX_STEPS + 1, 4), "at most 256"),
    ],
)  # fmt: skip
def test_what_is_not_taken_says_recurrent(layer: nn.Module, call: Any, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ebp_cuda.UnsupportedError, match=rf"recurrent.*{reason}|{reason}.*recurrent"):
        from_module(Fn(call, layer=layer).eval(), torch.rand(shape))


def test_weights_that_change_are_seen() -> None:
    module, x = classifier(nn.LSTM), torch.randn(1, 3, 4)
    net = ebp_cuda.from_torch(module, x)
    before = net.forward(x)[net.graph.outputs[0]]
    with torch.no_grad():
        module.recurrent.weight_hh_l0.mul_(-1)  # type: ignore[union-attr]
        after = net.forward(x)[net.graph.outputs[0]]
        torch.testing.assert_close(after, module(x))
    assert not torch.equal(before, after)
