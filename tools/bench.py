"""`make bench`: time of contrastive maps on a CPU against TorchRay's, medians of interleaved runs.

GoogLeNet (the paper's COCO network, 224 x 224, seeded random weights), c-MWP at pool2/3x3_s2 with the contrast at
pool5/7x7_s1, for one class and for twenty classes of one image. Before anything is timed both sides are compared
in float64: they must compute the same map. TorchRay gets the same weights, the classes as one batch of copies, and
once more a channels_last network, which its users may not think of.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchray_peer import INSTALL, GraphModule, contrastive_map, torchray_available

import ebp_cuda
from ebp_cuda import models
from ebp_cuda.graph import Graph
from ebp_cuda.net import Net

MODEL, LAYER, CONTRAST = "googlenet_coco", "pool2/3x3_s2", "pool5/7x7_s1"
GOALS = {"1 class": 0.6, "20 classes": 0.18}
SAME = 1e-6
IMAGE = Path(__file__).resolve().parents[1] / "tests" / "golden" / "inputs.npz"
Case = Callable[[], Any]


def random_net(seed: int, prototxt: str | None = None) -> Net:
    """The benchmark's network, or the one described, with He-scaled normal weights and small uniform biases."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{MODEL}.prototxt"
        path.write_text(models.prototxt(MODEL) if prototxt is None else prototxt, encoding="utf-8")
        graph = ebp_cuda.load(path).graph
    source = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: torch.Size) -> torch.Tensor:
        if name == "bias":
            return torch.rand(shape, generator=source) * 0.1 - 0.05
        return torch.randn(shape, generator=source) * (2.0 / shape[1:].numel()) ** 0.5

    nodes = [
        dataclasses.replace(node, params={name: draw(name, old.shape) for name, old in node.params.items()})
        for node in graph.nodes
    ]
    return Net(Graph(nodes, graph.inputs, graph.outputs, graph.names, graph.meta))


def photo() -> torch.Tensor:
    """A photo of a cat, [1, 3, 224, 224], BGR less the mean, as the original demo feeds it."""
    with np.load(IMAGE) as arrays:
        return torch.from_numpy(arrays["chelsea_224"]).reshape(1, 3, 224, 224)


class Bench:
    """Our side and the peer's on one network, and what is timed on them."""

    def __init__(self, net: Net, classes: int, peer: bool) -> None:
        self.net, self.classes, self.x = net, list(range(classes)), photo()
        self.ours = self.attribution("fp32")
        self.top = net.default_top()
        self.module = GraphModule(net.graph, self.top)
        self.wide = GraphModule(net.graph, self.top).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wide_x = self.x.contiguous(memory_format=torch.channels_last)
        self.layer, self.contrast = (net.graph.resolve(name)[0] for name in (LAYER, CONTRAST))
        self.peer = peer

    def attribution(self, dtype: str) -> ebp_cuda.ExcitationBackprop:
        return ebp_cuda.ExcitationBackprop(self.net, layer=LAYER, contrast_layer=CONTRAST, dtype=dtype)

    def agreement(self, dtype: str, classes: list[int]) -> float:
        """Largest relative L1 distance between our clipped maps and TorchRay's, both in `dtype`."""
        x = self.x.double() if dtype == "fp64" else self.x
        module = GraphModule(self.net.graph, self.top).to(x.dtype)
        theirs = contrastive_map(module, x, classes, self.layer, self.contrast)
        ours = self.attribution(dtype).attribute(x, [classes])[0].clamp(min=0)
        return float(((ours - theirs).abs().sum((1, 2)) / theirs.abs().sum((1, 2))).max())

    def cases(self) -> dict[str, Case]:
        """What is timed, by name: "what, whose"."""
        widths = {"1 class": [0], f"{len(self.classes)} classes": self.classes}
        found: dict[str, Case] = {
            "forward, ours": partial(self.net.forward, self.x, [self.top]),
            "forward, torch": partial(_eager, self.module, self.x),
            "forward, torch channels_last": partial(_eager, self.wide, self.wide_x),
        }
        for title, classes in widths.items():
            found[f"{title}, ours"] = partial(self.ours.attribute, self.x, [classes])
            if self.peer:
                found[f"{title}, TorchRay"] = partial(
                    contrastive_map, self.module, self.x, classes, self.layer, self.contrast
                )
                found[f"{title}, TorchRay channels_last"] = partial(
                    contrastive_map, self.wide, self.wide_x, classes, self.layer, self.contrast
                )
        return found


def _eager(module: GraphModule, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return module(x)


def measure(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every case in every round; a round runs each case once, so drift of the machine hits all."""
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in track(range(rounds), description="rounds", console=Console(stderr=True), transient=True):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """Our median over the peer's, for every peer case."""
    found = {}
    for name, median in medians.items():
        title, _, who = name.partition(", ")
        if who.startswith("TorchRay"):
            found[f"{title}, ours / {who}"] = medians[f"{title}, ours"] / median
    return found


def report(console: Console, times: dict[str, list[float]], found: dict[str, float]) -> None:
    table = Table("case", "median ms", "fastest", "slowest", title=f"{MODEL}, c-MWP at {LAYER}")
    for name, values in times.items():
        table.add_row(name, *(f"{value:.1f}" for value in (statistics.median(values), min(values), max(values))))
    console.print(table)
    for name, ratio in found.items():
        title, _, pair = name.partition(", ")
        goal = GOALS.get(title) if pair.endswith("TorchRay") else None
        verdict = "" if goal is None else f"   goal {goal}: {'reached' if ratio <= goal else 'MISSED'}"
        console.print(f"{name}: {ratio:.3f}{verdict}")


def compare(console: Console, bench: Bench) -> dict[str, float]:
    """Distance of our maps from TorchRay's by dtype, printed; empty where TorchRay is not installed."""
    if not bench.peer:
        console.print(f"TorchRay is not installed, so only our own times follow; to compare: {INSTALL}")
        return {}
    found = {dtype: bench.agreement(dtype, bench.classes[:3]) for dtype in ("fp64", "fp32")}
    both = f"{found['fp64']:.1e} in float64, {found['fp32']:.1e} in float32"
    console.print(f"distance from TorchRay's maps (relative L1): {both}")
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time contrastive excitation backprop on a CPU against TorchRay.")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case, interleaved (default 7)")
    parser.add_argument("--classes", type=int, default=20, help="classes of one image in the second case (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.rounds} interleaved rounds")
    free = (os.cpu_count() or 1) - os.getloadavg()[0]
    if free < args.threads - 0.5:
        console.print(f"warning: other work runs here ({free:.1f} of {os.cpu_count()} cores free); expect wild times")
    bench = Bench(random_net(args.seed), args.classes, torchray_available())
    distance = compare(console, bench)
    if bench.peer and not distance["fp64"] < SAME:
        console.print(f"error: above {SAME} in float64 the two compute different maps, and their times say nothing")
        return 1
    times = measure(bench.cases(), args.rounds)
    found = ratios({name: statistics.median(values) for name, values in times.items()})
    report(console, times, found)
    if args.json:
        results = {"ms": times, "ratios": found, "relative_l1": distance}
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
