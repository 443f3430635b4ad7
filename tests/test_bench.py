"""The benchmark's own parts: the peer's network must be ours, and the ratios must be the right way round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import bench
from torchray_peer import GraphModule

from ebp_cuda.errors import UnsupportedError
from ebp_cuda.graph import Graph, Node


def test_peer_network_gives_our_scores() -> None:
    net, x = bench.random_net(0), bench.photo()
    top = net.default_top()
    ours = net.forward(x, [top])[top]
    with torch.inference_mode():
        theirs = GraphModule(net.graph, top)(x)
    assert ours.std() > 0.01 * ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.abs().max()))


def test_random_net_is_drawn_from_its_seed() -> None:
    first, again, other = (bench.random_net(seed).graph.nodes[0].params["weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_ratio_is_our_time_over_the_peers() -> None:
    medians = {"forward, ours": 1.0, "1 class, ours": 3.0, "1 class, TorchRay": 6.0, "1 class, TorchRay x": 4.0}
    assert bench.ratios(medians) == {"1 class, ours / TorchRay": 0.5, "1 class, ours / TorchRay x": 0.75}


def test_peer_refuses_an_operation_it_cannot_build() -> None:
    graph = Graph([Node("odd", "softplus", ("x",), ("y",))], {"x": (None, 1)}, ("y",))
    with pytest.raises(UnsupportedError, match=r"'odd'.*softplus"):
        GraphModule(graph, "y")
