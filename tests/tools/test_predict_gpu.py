"""The model that predicts a GPU's times: its sums are held, and what it traces is what a call launches."""

from __future__ import annotations

import json
from pathlib import Path

import gpu_bench
import gpu_model
import gpu_trace
import numpy as np
import predict_gpu
import pytest
from bench import random_net

# tests/tools/first_launches.npz: every launch at the commit that brought the model, with the kernels' costs then.
# REVIEWED are the sums that an independent model found for that code, in milliseconds by fp32, tf32, bf16.
FIRST = Path(__file__).with_name("first_launches.npz")
REVIEWED = {
    "googlenet_coco 64 1": (25.1, 19.8, 19.0),
    "googlenet_coco 1 80": (13.1, 9.9, 9.1),
    "googlenet_coco 1 1": (2.0, 2.6, 2.5),
    "vgg16 64 1": (70.0, 67.0, 67.0),
}


def first_predictions() -> dict[str, float]:
    """Milliseconds by column, of the first launches at today's machine constants."""
    sums: dict[str, float] = {}
    with np.load(FIRST) as first:
        costs = json.loads(str(first["costs"]))
        for kernel, (column, *numbers, count) in zip(first["kernel"], first["numbers"], strict=True):
            moved, elements, flops, channels, blocks, steps, l2_bytes = numbers
            launch = gpu_model.Launch(
                str(first["kernels"][kernel]),
                "",
                "",
                moved,
                elements,
                flops,
                int(channels),
                int(blocks),
                int(steps),
                l2_bytes,
            )
            name = str(first["columns"][int(column)])
            sums[name] = sums.get(name, 0.0) + count * 1e3 * gpu_model.seconds(launch, counted=costs)
    return sums


def test_the_model_gives_the_reviewed_sums() -> None:
    predicted = first_predictions()
    for network, sums in REVIEWED.items():
        for dtype, reviewed in zip(("fp32", "tf32", "bf16"), sums, strict=True):
            assert predicted[f"{network} {dtype}"] == pytest.approx(reviewed, rel=0.1)


def test_the_machines_constants_are_as_they_were() -> None:
    """Whoever changes one has measured it, or has a source: that goes beside it, and the new sums go into the file."""
    with np.load(FIRST) as first:
        before = dict(zip(first["columns"], first["milliseconds"], strict=True))
    assert first_predictions() == pytest.approx({str(name): float(ms) for name, ms in before.items()}, rel=1e-6)


def test_more_of_anything_never_takes_less() -> None:
    cost = gpu_model.TiledCost(warps=4, resident=3, before=100, step=400, ending=1000, shared=300)
    times = [gpu_model.tiled_seconds(cost, blocks, 10 * blocks, gpu_model.H200) for blocks in range(1, 900, 7)]
    assert times == sorted(times)
    full = 3 * gpu_model.H200.processors
    one, two = (gpu_model.tiled_seconds(cost, n * full, 10 * n * full, gpu_model.H200) for n in (1, 2))
    assert two == pytest.approx(2 * one)
    assert gpu_model.tiled_seconds(cost, full + 1, 10 * (full + 1), gpu_model.H200) > 1.2 * one  # a wave of its own


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(KeyError, match="kernel_costs"):
        gpu_model.seconds(gpu_model.Launch("no such kernel", "", "", 1.0))


@pytest.mark.parametrize("setup", gpu_bench.REHEARSAL, ids=lambda setup: setup.name)
def test_a_trace_holds_every_product_and_pool(setup) -> None:
    net = random_net(0, setup.prototxt())
    launches = gpu_trace.trace(net, setup.layer, setup.contrast, setup.size, 2, 3, "fp32")
    labels = [launch.label for launch in launches]
    above = net.graph.descendants(net.graph.resolve(setup.layer)[:1])
    pools = [index for index, node in enumerate(net.graph.nodes) if node.op == "max_pool"]
    assert labels.count("max_pool2d") == len(pools)
    assert labels.count("max_pool2d_route") == len(above & set(pools))
    products = [index for index, node in enumerate(net.graph.nodes) if node.op in ("conv", "linear")]
    forward = [label for label in labels if label.startswith("forward") and "parts" not in label]
    assert len(forward) == len(products)
    sweeps = [label for label in labels if label.startswith("sweep") and "parts" not in label]
    assert len(sweeps) >= len(above & set(products))  # twice where the contrast's halves part


def test_a_rehearsal_writes_its_rows(tmp_path, capsys) -> None:
    file = tmp_path / "rows.json"
    assert predict_gpu.main(["--rehearse", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    keys = {"network", "images", "classes", "dtype", "predicted_ms", "floor_ms", "share", "launches"}
    assert {frozenset(row) for row in rows} == {frozenset(keys)}
    assert {row["dtype"] for row in rows} == {"fp32", "tf32", "bf16"}
    assert all(0 < row["floor_ms"] < row["predicted_ms"] and row["launches"] > 10 for row in rows)
    assert "not measured" in capsys.readouterr().out
