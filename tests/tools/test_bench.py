"""The benchmark's own parts: the peer's network must be ours, and the ratios must be the right way round."""

from __future__ import annotations

import bench
import torch
from memory import growth
from torchray_peer import peer_module

from ebp_cuda.graph import Graph, Node


def test_peer_network_gives_our_scores() -> None:
    net, x = bench.random_net(0), bench.photo()
    top = net.default_top()
    ours = net.forward(x, [top])[top].flatten(1)
    with torch.inference_mode():
        theirs = peer_module(net.graph, top)(x)
    assert ours.std() > 0.01 * ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.abs().max()))


def test_random_net_is_drawn_from_its_seed() -> None:
    first, again, other = (bench.random_net(seed).graph.nodes[0].params["weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_ratio_is_our_time_over_the_peers() -> None:
    row = bench.Row(bench.GOOGLENET, 1, 20, 0.1)
    medians = {"ours": 3.0, "TorchRay": 6.0, "forward, eager": 4.0}
    wanted = {"googlenet_coco N1 K20 / TorchRay": 0.5, "googlenet_coco N1 K20 / forward, eager": 0.75}
    assert bench.ratios(row, medians) == wanted


def test_rows_are_found_by_name() -> None:
    assert [row.name for row in bench.chosen_rows("vgg16")] == ["vgg16 N1 K1", "vgg16 N1 K20"]
    assert [row.classes for row in bench.chosen_rows("googlenet_coco N1 K1")] == [1]
    assert bench.chosen_rows("") == list(bench.ROWS)


def test_rounds_end_with_the_time_but_not_before_two() -> None:
    assert list(bench.rounds_within(5, 0.0)) == [0, 1]
    assert list(bench.rounds_within(3, 60.0)) == [0, 1, 2]


def test_growth_is_what_a_call_takes() -> None:
    taken = growth(lambda: torch.ones(25_000_000))
    assert 90e6 < taken < 130e6


def test_peer_writes_over_no_probed_value() -> None:
    relu = Graph([Node("r", "relu", ("x",), ("y",))], {"x": (None, 2)}, ("y",))
    for probed in ((), ("x",)):
        x = torch.tensor([[-1.0, 2.0]])
        with torch.inference_mode():
            peer_module(relu, "y", probed)(x)
        assert (float(x[0, 0]) == -1.0) is bool(probed)
