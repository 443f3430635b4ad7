"""The command bench and what it measures with: every layer has its share, and timing changes no result."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from support import paths

import ebp_cuda
from ebp_cuda import ExcitationBackprop, cli
from ebp_cuda.cli.profile import known_network, measure, profile

GOLDEN = paths.GOLDEN / "caffemodel"
PROTOTXT, CAFFEMODEL = GOLDEN / "inception_block.prototxt", GOLDEN / "inception_block.caffemodel"


@pytest.fixture(scope="module")
def net() -> ebp_cuda.Net:
    return ebp_cuda.load(PROTOTXT, CAFFEMODEL)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["ebp-cuda", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    return printed.out if stop.value.code in (0, None) else f"exit {stop.value.code}: {printed.err}"


def test_every_layer_of_the_way_has_a_share(net: ebp_cuda.Net) -> None:
    method = ExcitationBackprop(net, "n0", "pp", graphs=False)
    plan, x = method.plan, torch.rand(2, 3, 31, 39)
    before = method.run(x, [0, 1]).maps
    found = profile(method, x, [0, 1], range(2))
    assert method.plan is plan and torch.equal(method.run(x, [0, 1]).maps, before)
    names = [layer.name for layer in found.layers]
    order = [node.name for node in plan.graph.nodes]
    assert names == [name for name in order if name in names] and len(names) >= 10
    swept = {plan.graph.nodes[i].name for i in plan.route([net.default_top()], [plan.graph.resolve("n0")[0]]).nodes}
    assert {layer.name for layer in found.layers if layer.sweep > 0} == swept
    assert all(layer.forward > 0 for layer in found.layers) and found.rest > 0
    assert found.total == pytest.approx(found.rest + sum(layer.forward + layer.sweep for layer in found.layers))


def test_a_failure_gives_the_plan_back(net: ebp_cuda.Net) -> None:
    method = ExcitationBackprop(net, "n0", graphs=False)
    plan = method.plan
    with pytest.raises(ebp_cuda.InputError):
        profile(method, torch.rand(1, 3, 31, 39), 10**6)
    assert method.plan is plan


def test_cases_take_turns() -> None:
    order: list[str] = []
    times = measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, range(3))
    assert order == ["a", "b"] * 4  # the first of each warms up
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_a_known_network_is_drawn_from_its_seed() -> None:
    first, again = (known_network("alexnet").graph.nodes[0].params["weight"] for _ in range(2))
    assert torch.equal(first, again) and 0.02 < float(first.std()) < 0.2


def test_bench_tells_time_rate_and_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--model", PROTOTXT, "--weights", CAFFEMODEL, "--layer", "n0", "--contrast-layer", "pp"]
    out = command(monkeypatch, capsys, *files, "--classes", 3, "--batch", 2, "--rounds", 2)
    for text in (
        "6 maps of 2 images 3x",
        " at n0: ",
        " ms a map, ",
        " maps/s, ",
        " forward passes of ",
        " MB beside the",
    ):
        assert text in out
    out = command(monkeypatch, capsys, *files, "--rounds", 2, "--profile")
    assert "1 maps: " in out and "between the layers" in out and "100.0%" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vgg", "--layer", "pool4"], r"error: .*vgg"),
        (["--model", "alexnet", "--size", "224"], r"--size 224: input 'data' has the size 227x227"),
        (["--model", "alexnet", "--weights", CAFFEMODEL], r"no parameters for layer 'conv1'"),
    ],
)
def test_bench_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    found = command(monkeypatch, capsys, *arguments)
    assert found.startswith("exit 2: error: ")
    assert re.search(message, found), found
