"""What a GPU is checked and measured with, on a machine that has none."""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import asdict

import gpu_bench
import gpu_check
import gpu_choices
import gpu_floor
import gpu_library
import gpu_ops
import gpu_steps
import gpu_tune
import pytest
import torch
from autograd_peer import AutogradPeer
from bench import random_net
from gpu_model import Launch
from torch_sweep import TorchSweep

from ebp_cuda import ExcitationBackprop, ops
from ebp_cuda.graph import Graph, Node
from ebp_cuda.net import Net
from ebp_cuda.ops.choices import choices, other_choices

CPU = torch.device("cpu")


@pytest.mark.parametrize("setup", gpu_bench.REHEARSAL, ids=lambda setup: setup.name)
@pytest.mark.parametrize("columns", [1, 3])
def test_the_yardstick_computes_our_maps(setup, columns) -> None:
    net = random_net(0, setup.prototxt())
    layer, contrast = (net.graph.resolve(name)[0] for name in (setup.layer, setup.contrast))
    x = torch.rand(2, 3, *setup.size)
    targets = torch.arange(columns) + torch.arange(2)[:, None]
    got = TorchSweep(net.graph, net.default_top(), layer, contrast, CPU).maps(x, targets)
    wanted = ExcitationBackprop(net, setup.layer, setup.contrast, dtype="fp64").attribute(x, targets)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().sum() / wanted.abs().sum()) < 1e-5


@pytest.mark.parametrize("setup", gpu_bench.REHEARSAL, ids=lambda setup: setup.name)
def test_the_usual_way_computes_our_maps(setup) -> None:
    net = random_net(0, setup.prototxt())
    layer, contrast = (net.graph.resolve(name)[0] for name in (setup.layer, setup.contrast))
    x, targets = torch.rand(3, 3, *setup.size, dtype=torch.float64), torch.tensor([0, 2, 1])
    graph = Graph(
        [dataclasses.replace(n, params={k: p.double() for k, p in n.params.items()}) for n in net.graph.nodes],
        net.graph.inputs,
        net.graph.outputs,
    )
    got = AutogradPeer(graph, net.default_top(), layer, contrast, CPU).maps(x, targets)
    wanted = ExcitationBackprop(net, setup.layer, setup.contrast, dtype="fp64").attribute(x, targets)[:, 0]
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().sum() / wanted.abs().sum()) < 1e-6


def two_layers() -> Net:
    """x [3, 4, 4] -> 3x3 convolution to 5 channels -> fully connected to 3."""
    conv = Node(
        "c",
        "conv",
        ("x",),
        ("y",),
        {"stride": (1, 1), "padding": (1, 1), "padding_end": (1, 1), "dilation": (1, 1), "groups": 1},
        {"weight": torch.ones(5, 3, 3, 3)},
    )
    flat = Node("f", "flatten", ("y",), ("v",), {"axis": 1})
    linear = Node("l", "linear", ("v",), ("z",), {}, {"weight": torch.ones(3, 80)})
    return Net(Graph([conv, flat, linear], {"x": (None, 3, 4, 4)}, ("z",)))


def test_floor_counts_each_product_and_each_byte_once() -> None:
    parts = list(gpu_floor.work(two_layers(), (4, 4), "x", "y", images=3, columns=4))
    conv, linear = 2 * 80 * 27, 2 * 3 * 80
    flops = {phase: sum(part.flops for part in parts if part.phase == phase) for phase in range(3)}
    assert flops[gpu_floor.FORWARD] == flops[gpu_floor.NORMALIZER] == 3 * (conv + linear)
    assert flops[gpu_floor.SWEEP] == 3 * 4 * (conv + 2 * linear)  # the contrast's halves part above y
    assert parts[0].bytes == 4 * (3 * (48 + 80) + 135)
    ceilings = gpu_floor.Ceilings({"fp32": 1.0, "tf32": 1.0, "bf16": 1.0}, float("inf"))
    assert gpu_floor.floor_seconds(parts, "fp32", ceilings) == sum(flops.values())
    slow_memory = dataclasses.replace(ceilings, flops=dict.fromkeys(gpu_floor.PRODUCTS, float("inf")), bandwidth=2.0)
    assert gpu_floor.floor_seconds(parts, "bf16", slow_memory) == sum(part.bytes for part in parts) / 2


def test_every_op_has_a_case_that_a_wrong_answer_fails(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_ops.py", "cpu", "--quick"])
    assert gpu_ops.main() == 0, capsys.readouterr().out
    right, calls = ops.lrn, iter(range(1000))
    monkeypatch.setattr(ops, "lrn", lambda *a: right(*a) * (1 + 1e-3 * (next(calls) % 2)))
    assert gpu_ops.main() == 1
    assert "lrn on [2, 3, 5, 6]" in capsys.readouterr().out


def test_a_step_fails_by_its_code_its_silence_or_its_time(tmp_path) -> None:
    def outcome(code: str, shows: str = "", limit: int = 20) -> gpu_check.Outcome:
        step = gpu_steps.Step("s", (sys.executable, "-c", code), limit, shows)
        return gpu_check.run(step, tmp_path / "log.txt")

    assert outcome("print('3 passed')", r"[1-9]\d* passed").trouble == ""
    assert outcome("raise SystemExit(3)").trouble == "exit code 3"
    assert "does not say" in outcome("print('0 passed, 9 skipped')", r"[1-9]\d* passed").trouble
    assert outcome("import time; time.sleep(60)", limit=1).trouble == "not done after 1 s"
    missing = gpu_check.run(gpu_steps.Step("s", ("/none",), 1), tmp_path / "log.txt")
    assert "no such file" in missing.trouble.lower()
    assert gpu_check.run(gpu_steps.Step("s", (), 1), tmp_path / "log.txt").trouble == gpu_check.LEFT_OUT


def test_one_step_that_hangs_or_fails_hides_no_other(tmp_path, capsys) -> None:
    def step(name: str, code: str, stage: int) -> gpu_steps.Step:
        return gpu_steps.Step(name, (sys.executable, "-c", code), 3, stage=stage)

    planned = [step("hangs", "import time; time.sleep(60)", 0), step("fails", "print('why'); raise SystemExit(1)", 0)]
    planned += [step("works", "print('fine')", 0), step("later", "print('too')", 1)]
    outcomes = gpu_check.run_all("correct", planned, tmp_path / "log", time.monotonic() + 60)
    troubles = {outcome.step.name: outcome.trouble for outcome in outcomes}
    assert troubles == {"hangs": "not done after 3 s", "fails": "exit code 1", "works": "", "later": ""}
    assert "why" in capsys.readouterr().out and "fine" in (tmp_path / "log").read_text()


def test_more_than_can_be_brought_back_is_a_failure(tmp_path) -> None:
    assert gpu_check.too_much(tmp_path, 0.0) == ""
    for i in range(gpu_check.MOST_FILES):
        (tmp_path / str(i)).write_text("x")
    assert gpu_check.too_much(tmp_path, 0.0) == ""
    (tmp_path / "0").write_bytes(bytes(gpu_check.LARGEST_FILE))
    assert gpu_check.too_much(tmp_path, 0.0).startswith("0 in ")
    (tmp_path / "one more").write_text("x")
    assert "8 files" in gpu_check.too_much(tmp_path, 0.0)
    assert gpu_check.too_much(tmp_path, time.time() + 60) == ""


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("correct", {"launchers", "memcheck", "racecheck", "initcheck"}),
        ("fast", {"rows", "schedules", "forward by a library", "tuned rows", "profile", "peers"}),
    ],
)
def test_the_parts_hold_their_steps(part, names, tmp_path) -> None:
    planned = gpu_steps.steps(part, False, tmp_path)
    stages = [step.stage for step in planned]
    assert stages == sorted(stages) and len({step.name for step in planned}) == len(planned)
    assert {"device", "build", "driver"} | names <= {step.name for step in planned}
    longest = [max(s.limit for s in planned if s.stage == stage) for stage in sorted(set(stages))]
    if part == "correct":  # side by side; the fast part's steps are cut by the part's limit, peers first
        assert sum(longest) <= 240 and {f"ops: {family}" for family in gpu_ops.FAMILIES} <= {s.name for s in planned}


def test_the_cases_of_ops_reach_every_kernel() -> None:
    assert gpu_ops.reached() >= gpu_ops.VARIANTS


def test_times_of_schedules_are_read_and_losses_told() -> None:
    output = "a class up 3 6 20\na chosen fp32: simt terms small 1 fp32\na time 9.00 us: simt terms small 1 fp32\n"
    output += "a time 4.50 us: simt terms large 2 fp32\na time 1.00 us: mma terms large 1 tf32\nnoise\n"
    (timed,) = gpu_tune.measured(output.splitlines())
    assert (timed.way, timed.large_tiles, timed.small_tiles, timed.steps) == ("up", 3, 6, 20)
    assert timed.loss("fp32") == (4.5, "simt terms large 2 fp32") and timed.loss("tf32") is None
    assert "large 2" in gpu_tune.table([timed])


def test_the_layers_that_should_take_longest_are_timed_first() -> None:
    def launch(images: int) -> dict[str, object]:
        sizes = {"layer": f"{images}x8x5x6 8x16x3x3", "blocks": images, "steps": 9 * images, "bytes": 1e6 * images}
        return asdict(Launch("mma tf32 down", "sweep 3x3", **sizes))

    depthwise = asdict(Launch("depthwise", "sweep 3x3", "2x8x5x6 8x1x3x3", 1.0))
    lines = gpu_tune.layers([{"traced": [launch(2), launch(64), depthwise, launch(2)]}])
    assert lines == [f"down:{n}x5x6:8x16x3x3 {n} 16 8 5 6 3 1 1 down" for n in (64, 2)]


def timed(tiles: int, small: float, large: float, split: float) -> gpu_choices.Timed:
    """A layer of 40 steps: times of the small tile, the large one, and the large one in two parts."""
    times = {"simt terms small 1 fp32": small, "simt terms small 2 fp32": small, "simt terms large 1 fp32": large}
    times |= {"simt terms large 2 fp32": split, "simt single small 1 fp32": 99.0}
    return gpu_choices.Timed(f"l{tiles}", "up", tiles, 2 * tiles, 40, times, {"fp32": "simt terms small 1 fp32"})


def test_the_rows_follow_the_times_class_by_class() -> None:
    """A class that was not timed goes with the next larger one."""
    layers = [timed(600, 9.0, 5.0, 7.0), timed(300, 9.0, 5.0, 7.0), timed(100, 9.0, 6.0, 4.0), timed(3, 2.0, 6.0, 4.0)]
    rows = gpu_choices.proposed(layers, choices())
    assert rows[:2] == [("up", "fp32", 0, 16, 0, True, 264), ("up", "fp32", 0, 0, 0, False, 1)]
    assert [row for row in rows if row.way == "down"] == [row for row in choices() if row.way == "down"]
    with other_choices(rows):
        assert choices() == rows


def test_every_variant_of_the_forward_is_timed() -> None:
    """On tensors without memory, which take the ways of a GPU's."""
    c = gpu_library.Convolution((2, 8, 5, 6), (16, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    made = {name: case() for name, case in gpu_library.ways(c, torch.device("meta"))}
    layouts = ["nchw", "nchw, benchmark", "nhwc", "nhwc, benchmark"]
    assert list(made) == [*layouts, "ours with normalizer", "our normalizer"]
    assert all((y[0] if isinstance(y, tuple) else y).shape == (2, 16, 5, 6) for y in made.values())
    assert {c.weight[2] for c in gpu_library.convolutions(rehearse=True)} == {1, 3, 5}
    times = {name: 1.0 + (name != "nhwc") for name in layouts}
    assert any(text.startswith("nhwc ") and "fastest   1 of 1" in text for text in gpu_library.wins([(c, times)]))


def test_table_has_a_cell_per_column_with_and_without_numbers() -> None:
    row = gpu_bench.Row("n", "l", 64, 1, "fp32", floor_ms=1.0, gflop=30.0, gbyte=2.0)
    done = dataclasses.replace(row, ours_ms=2.0, again_ms=2.1, eager_ms=2.5, error=1e-6, torch_ms=6.0)
    head, rule, empty, full, *_ = gpu_bench.table([row, done]).splitlines()
    assert head.count("|") == rule.count("|") == empty.count("|") == full.count("|")
    assert "32,000" in full and "50% of 1.000 ms" in full and "3.00" in full and "15.00" in full
