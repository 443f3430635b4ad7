"""What zennit's ExcitationBackprop composite computes, beside this package: the numbers of docs/backend.md."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.compat_nets import images, plain_net
from torch import nn

import ebp_cuda

composites = pytest.importorskip("zennit.composites", reason="zennit is not installed")
canonizers = pytest.importorskip("zennit.canonizers")

BARE: dict[str, Any] = {"zero_params": ["bias"], "stabilizer": 1e-30}
"""The composite's settings that come closest to the paper."""


def theirs(net: nn.Module, x: torch.Tensor, layer: str | None, **options: Any) -> torch.Tensor:
    """Relevance of class 3 by zennit, at a module's output or the input, summed over channels."""
    kept = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    leaf = x.clone().requires_grad_()
    with composites.ExcitationBackprop(**options).context(net) as changed:
        hook = net.get_submodule(layer).register_forward_hook(keep) if layer else None
        scores = changed(leaf)
        scores.backward(torch.eye(scores.shape[1], dtype=x.dtype)[3].expand_as(scores))
        if hook is not None:
            hook.remove()
    found = kept[0].grad if layer else leaf.grad
    return found.sum(1)


def ours(net: nn.Module, x: torch.Tensor, layer: str | None, rules: str) -> torch.Tensor:
    network = ebp_cuda.from_torch(net, x)
    name = layer or next(iter(network.graph.inputs))
    return ebp_cuda.ExcitationBackprop(network, name, rules=rules, dtype="fp64").attribute(x, 3).squeeze(1)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L1."""
    return float((a - b).abs().sum() / b.abs().sum())


@pytest.fixture
def net() -> nn.Module:
    found = plain_net().double().eval()
    found[4].inplace = False  # zennit's own demand
    return found


POSITIVE = images(2, dtype=torch.float64)


@pytest.mark.parametrize("layer", ["4", None], ids=["layer", "input"])
def test_bias_takes_relevance_by_default(net, layer) -> None:
    found = theirs(net, POSITIVE, layer)
    assert (found.sum((1, 2)) < 0.3).all() and distance(found, ours(net, POSITIVE, layer, "caffe")) > 0.7


@pytest.mark.parametrize("layer", ["4", None], ids=["layer", "input"])
def test_without_bias_the_stabiliser_is_the_difference(net, layer) -> None:
    wanted = ours(net, POSITIVE, layer, "caffe")
    assert 1e-5 < distance(theirs(net, POSITIVE, layer, zero_params=["bias"]), wanted) < 1e-3
    assert distance(theirs(net, POSITIVE, layer, **BARE), wanted) < 1e-12


def test_signed_inputs_are_split_as_conserving_does(net) -> None:
    x = POSITIVE - 0.5
    found = theirs(net, x, None, **BARE)
    assert distance(found, ours(net, x, None, "conserving")) < 1e-12
    assert distance(found, ours(net, x, None, "caffe")) > 0.5


def test_batch_norm_wants_a_canonizer() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).double()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
    net.eval()
    plain = theirs(net, POSITIVE, "2", **BARE)  # batch norm takes its gradient
    assert distance(plain, ours(net, POSITIVE, "2", "caffe")) > 0.5
    merged = theirs(net, POSITIVE, "2", **BARE, canonizers=[canonizers.SequentialMergeBatchNorm()])
    assert distance(merged, ours(net, POSITIVE, "2", "conserving")) < 1e-5  # the norm's eps is left over
    assert distance(merged, ours(net, POSITIVE, "2", "caffe")) > 0.05


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.pool, self.top = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.a(x))
        return self.top(self.pool(self.relu(h + self.relu(self.b(h)))).flatten(1))


def test_a_plain_sum_hands_everything_to_both() -> None:
    net = Residual().double().eval()
    assert (theirs(net, POSITIVE, "a", **BARE).sum((1, 2)) > 1.1).all()
    assert ours(net, POSITIVE, "a", "caffe").sum((1, 2)) == pytest.approx([1, 1], abs=0.01)
    assert ours(net, POSITIVE, "a", "conserving").sum((1, 2)) == pytest.approx([1, 1], abs=1e-12)
