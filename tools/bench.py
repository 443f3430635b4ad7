"""`make bench`: time and memory of contrastive maps on a CPU against TorchRay's, medians of interleaved runs.

GoogLeNet (the paper's COCO network) at pool2/3x3_s2 and VGG16 at pool4, 224 x 224, seeded random weights, for one and
for many classes of one image and for several images. Before anything is timed both sides are compared in float64: they
must compute the same map. TorchRay gets the same weights, many classes as batches of copies of the image, and where it
is short once more a channels_last network, which its users may not think of. Beside them the same images go forward
through the same network as an ordinary torch module, eager and compiled.

Memory is the growth of the resident set of a process of its own to its peak over the first call, with everything that
the call makes and keeps: packed weights here, rectified weights and gradients there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import growth
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchray_peer import INSTALL, contrastive_map, peer_module, torchray_available

import ebp_cuda
from ebp_cuda import models
from ebp_cuda.cli.profile import known_network, measure, with_random_weights
from ebp_cuda.eval.graph_module import GraphModule
from ebp_cuda.net import Net

SAME = 1e-6
COPIES = 20
"""Copies of an image that TorchRay gets at once."""
IMAGE = Path(__file__).resolve().parents[1] / "tests" / "golden" / "inputs.npz"
Case = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """What is measured: maps of `classes` classes of each of `images` images."""

    network: str
    images: int
    classes: int
    goal: float
    """Our time over TorchRay's, at most."""

    @property
    def name(self) -> str:
        return f"{self.network} N{self.images} K{self.classes}"


GOOGLENET, VGG16 = "googlenet_coco", "vgg16"
PLACES = {GOOGLENET: ("pool2/3x3_s2", "pool5/7x7_s1"), VGG16: ("pool4", "fc7")}
ROWS = (
    Row(GOOGLENET, 1, 1, 0.40),
    Row(GOOGLENET, 1, 20, 0.10),
    Row(GOOGLENET, 1, 80, 0.08),
    Row(GOOGLENET, 8, 1, 0.45),
    Row(VGG16, 1, 1, 0.40),
    Row(VGG16, 1, 20, 0.05),
)


def random_net(seed: int, prototxt: str | None = None) -> Net:
    """GoogLeNet, or the network described, with random weights."""
    if prototxt is None:
        return known_network(GOOGLENET, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.prototxt"
        path.write_text(prototxt, encoding="utf-8")
        return with_random_weights(ebp_cuda.load(path), seed)


def photo(images: int = 1) -> torch.Tensor:
    """A photo of a cat, [N, 3, 224, 224], BGR less the mean, as the original demo feeds it; shifted from image to
    image."""
    with np.load(IMAGE) as arrays:
        first = torch.from_numpy(arrays["chelsea_224"]).reshape(1, 3, 224, 224)
    return torch.cat([first.roll(7 * i, 3) for i in range(images)])


class Bench:
    """Our side and the peers on one network, and what is timed on them for a row."""

    def __init__(self, network: str, seed: int = 0) -> None:
        self.net = random_net(seed, models.prototxt(network))
        self.places = PLACES[network]
        self.top = self.net.default_top()
        self.values = [self.net.graph.resolve(name)[0] for name in self.places]
        self.module = peer_module(self.net.graph, self.top, self.values)
        self.compiled: Any = None

    def method(self, dtype: str = "fp32") -> ebp_cuda.ExcitationBackprop:
        return ebp_cuda.ExcitationBackprop(self.net, *self.places, dtype=dtype)

    def agreement(self, dtype: str, classes: list[int]) -> float:
        """Largest relative L1 distance between our clipped maps and TorchRay's, both in `dtype`."""
        x = photo().double() if dtype == "fp64" else photo()
        module = peer_module(self.net.graph, self.top, self.values).to(x.dtype)
        theirs = contrastive_map(module, x, classes, *self.values)
        ours = self.method(dtype).attribute(x, [classes])[0].clamp(min=0)
        return float(((ours - theirs).abs().sum((1, 2)) / theirs.abs().sum((1, 2))).max())

    def wide(self) -> GraphModule:
        module = peer_module(self.net.graph, self.top, self.values)
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compile(self) -> None:
        """Compiles the forward pass; the first call takes a minute."""
        self.compiled = torch.compile(self.wide())

    def cases(self, row: Row, peer: bool) -> dict[str, Case]:
        """What is timed, by name."""
        x, classes = photo(row.images), list(range(row.classes))
        wide_x = x.contiguous(memory_format=torch.channels_last)
        cases: dict[str, Case] = {"ours": partial(self.method().attribute, x, [classes] * row.images)}
        if peer:
            cases["TorchRay"] = partial(self._theirs, self.module, x, row)
        if peer and row.images * row.classes <= COPIES and row.network == GOOGLENET:
            cases["TorchRay channels_last"] = partial(self._theirs, self.wide(), wide_x, row)
        cases["forward, ours"] = partial(self.net.forward, x, [self.top])
        cases["forward, eager"] = partial(_forward, self.module, x)
        if self.compiled is not None:
            cases["forward, compiled"] = partial(_forward, self.compiled, wide_x)
        return cases

    def _theirs(self, module: GraphModule, x: torch.Tensor, row: Row) -> None:
        each = list(range(row.classes)) if row.images == 1 else [0] * row.images
        for start in range(0, len(each), COPIES):
            contrastive_map(module, x, each[start : start + COPIES], *self.values)


def _forward(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return module(x)


def rounds_within(rounds: int, seconds: float) -> Iterator[int]:
    """So many rounds, at least two, and no further one once the time is over."""
    start = time.perf_counter()
    for i in range(rounds):
        if i >= 2 and time.perf_counter() - start > seconds:
            return
        yield i


def ratios(row: Row, medians: dict[str, float]) -> dict[str, float]:
    """Our median over that of every peer, by "row / peer"."""
    return {f"{row.name} / {name}": medians["ours"] / ms for name, ms in medians.items() if name != "ours"}


def peak(row: Row, case: str, threads: int) -> int:
    """Bytes that the first call of a case takes, from a process of its own."""
    command = [sys.executable, __file__, "--peak-of", row.name, case, "--threads", str(threads)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def report(console: Console, row: Row, times: dict[str, list[float]], peaks: dict[str, int]) -> None:
    """The row's table, and whether its goal is reached."""
    layer = PLACES[row.network][0]
    table = Table("case", "median ms", "fastest", "slowest", "ours / it", "peak MB", title=f"{row.name} at {layer}")
    mine = statistics.median(times["ours"])
    for name, values in times.items():
        middle = statistics.median(values)
        size = f"{peaks[name] / 1e6:.0f}" if name in peaks else ""
        table.add_row(name, *(f"{ms:.1f}" for ms in (middle, min(values), max(values))), f"{mine / middle:.3f}", size)
    console.print(table)
    if "TorchRay" in times:
        ratio = mine / statistics.median(times["TorchRay"])
        console.print(f"goal {row.goal}: {'reached' if ratio <= row.goal else 'MISSED'} with {ratio:.3f}\n")


def compare(console: Console, bench: Bench, network: str) -> dict[str, float]:
    """Distance of our maps from TorchRay's by dtype, printed."""
    classes = [0, 1, 2] if network == GOOGLENET else [0]
    distance = {dtype: bench.agreement(dtype, classes) for dtype in ("fp64", "fp32")}
    both = f"{distance['fp64']:.1e} in float64, {distance['fp32']:.1e} in float32"
    console.print(f"{network}: distance from TorchRay's maps (relative L1): {both}")
    return distance


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time contrastive excitation backprop on a CPU against TorchRay.")
    parser.add_argument(
        "--rows", default="", help=f"only rows whose name holds this, of {', '.join(r.name for r in ROWS)}"
    )
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each case, interleaved (default 9)")
    parser.add_argument("--seconds", type=float, default=120, help="of a row, after two rounds (default 120)")
    parser.add_argument("--short", action="store_true", help="one class on GoogLeNet, three rounds, nothing compiled")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="time compiled forwards")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure peak memory")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.short:
        args.rows, args.rounds, args.compile = args.rows or ROWS[0].name, 3, False
    return args


def chosen_rows(text: str) -> list[Row]:
    """The rows whose name holds the text; a whole name is that row alone."""
    exact = [row for row in ROWS if row.name == text]
    return exact or [row for row in ROWS if text in row.name]


def run(args: argparse.Namespace, console: Console) -> int:
    """Measures the rows asked for; 1 where the two sides do not compute the same."""
    peer, results = torchray_available(), {}
    if not peer:
        console.print(f"TorchRay is not installed, so only our own times follow; to compare: {INSTALL}")
    rows = chosen_rows(args.rows)
    for network in dict.fromkeys(row.network for row in rows):
        bench = Bench(network, args.seed)
        distance = compare(console, bench, network) if peer else {}
        if peer and not distance["fp64"] < SAME:
            console.print(f"error: above {SAME} in float64 the two compute different maps, and their times say nothing")
            return 1
        if args.compile:
            bench.compile()
        for row in (row for row in rows if row.network == network):
            cases = bench.cases(row, peer)
            steps = rounds_within(args.rounds, args.seconds)
            shown = Console(stderr=True)
            times = measure(cases, track(steps, row.name, total=args.rounds, console=shown, transient=True))
            timed = [name for name in cases if args.memory and name != "forward, compiled"]
            peaks = {name: peak(row, name, args.threads) for name in timed}
            report(console, row, times, peaks)
            medians = {name: statistics.median(values) for name, values in times.items()}
            results[row.name] = {
                "ms": times,
                "peak_bytes": peaks,
                "ratios": ratios(row, medians),
                "relative_l1": distance,
            }
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def main() -> int:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        row = chosen_rows(args.peak_of[0])[0]
        print(growth(Bench(row.network).cases(row, torchray_available())[args.peak_of[1]]))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"torch {torch.__version__}, {args.threads} threads, medians of up to {args.rounds} interleaved rounds"
    )
    free = (os.cpu_count() or 1) - os.getloadavg()[0]
    if free < args.threads - 0.5:
        console.print(f"warning: other work runs here ({free:.1f} of {os.cpu_count()} cores free); expect wild times")
    return run(args, console)


if __name__ == "__main__":
    sys.exit(main())
