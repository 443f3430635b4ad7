"""Every architecture of zoo_networks.py through `from_torch`: what it computes, what it conserves, and the oracle.

About a minute and a half on one core, most of it inside torch.export.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle import tape as oracle_tape
from support.zoo_networks import REFUSED, TIMM, TORCHVISION, VIDEO, built
from support.zoo_table import PAGE, REASON, row
from torch import nn

import ebp_cuda

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
torch.set_num_threads(1)

SIZES = {"Inception v3": (3, 75, 75)}
TARGETS = [0, 7]
NETWORKS = {**TORCHVISION, **VIDEO, **TIMM}


def test_there_are_at_least_thirty() -> None:
    assert len(NETWORKS) >= 30


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    shape = (3, 4, 32, 32) if name in VIDEO else SIZES.get(name, (3, 64, 64))
    module, x = built(NETWORKS[name]), torch.rand(2, *shape)
    net = ebp_cuda.from_torch(module, x)
    (image,) = net.graph.inputs
    family = "timm" if name in TIMM else "torchvision, video" if name in VIDEO else "torchvision"
    assert row(name, family, len(net.graph.nodes), {node.op for node in net.graph.nodes}) in PAGE.read_text()
    wanted, p = oracle_tape.attribute(module, x, TARGETS)
    scores = net.forward(x)[net.graph.outputs[0]]
    assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    maps = ebp_cuda.ExcitationBackprop(net, image, rules="conserving").relevance(x, TARGETS_OF_BOTH)
    assert torch.isfinite(maps).all()
    assert maps.min() >= 0
    torch.testing.assert_close(maps.flatten(2).sum(2), torch.ones(2, 2), rtol=0, atol=1e-4)
    exact = ebp_cuda.ExcitationBackprop(net, image, rules="conserving", dtype="fp64").relevance(x, TARGETS_OF_BOTH)
    assert relative_l1(exact, p) < 1e-6


TARGETS_OF_BOTH = [TARGETS] * 2


def relative_l1(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((got - wanted).abs().flatten(2).sum(2) / wanted.abs().flatten(2).sum(2)).max())


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make: Callable[[], nn.Module] = REFUSED[name]
    with pytest.raises(ebp_cuda.UnsupportedError, match=REASON):
        ebp_cuda.from_torch(built(make), torch.rand(2, 3, 64, 64))
    assert f"| {name} | {REASON} |" in PAGE.read_text()
