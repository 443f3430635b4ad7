"""Time of contrastive maps on a GPU: ours, our algorithm on torch's parts, TorchRay's, and the computed floor.

    python tools/gpu_bench.py [--dtypes fp32,tf32,bf16] [--seconds 200] [--out FOLDER] [--peers] [--predicted FILE]
        [--choices FILE] [--rehearse]

GoogLeNet at pool2 and VGG16 at pool4, batches of 1 and 64, one class and 80 (VGG16: 20); seeded random weights, made on
the fly. Every time is the median of timed calls after three untimed ones, by CUDA events, one call in flight. Ours is
the whole call of `attribute`, replayed as a CUDA graph, and beside it the same call run eagerly; the yardstick too is
timed either way. The peers may use tf32 exactly where we do: never in the rows of fp32, always in those of tf32 and
bf16. Ours is timed twice, before and after the peers; a difference smaller than that between the two is noise. Writes
DEVICE-DATE.json anew after every row, the most telling rows first, and prints the table at the end. --peers: the peers
too, which take most of the time (the file is then DEVICE-DATE-peers). --predicted: rows of predict_gpu.py, to stand
beside the measured ones. --choices: rows of gpu_tune.py, by which kernels are chosen instead of the project's (the file
is then DEVICE-DATE-choices).
--rehearse runs it all on the CPU with two tiny networks, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograd_peer import AutogradPeer  # noqa: E402
from bench import random_net  # noqa: E402
from gpu_choices import tried  # noqa: E402
from gpu_floor import PRODUCTS, Ceilings, floor_seconds, measure_ceilings, tf32, timings, work  # noqa: E402
from gpu_rows import Row, table  # noqa: E402
from torch_sweep import TorchSweep  # noqa: E402
from torchray_peer import INSTALL, peer_module, torchray_available  # noqa: E402

import ebp_cuda  # noqa: E402
from ebp_cuda import ExcitationBackprop, models  # noqa: E402
from ebp_cuda.files import atomic_path  # noqa: E402

OTHER_MAP = 0.1
AT_ONCE = 256
"""Copies of images that the usual way takes at once; more are as many times slower."""
TINY = ROOT / "tests" / "golden" / "tiny"
Keep = Callable[[list[Row], list[str]], None]
"""Writes down the rows so far, and the names of those that were left out."""
DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Setup:
    """A network, where its map is read, and the batches [images, classes]."""

    name: str
    layer: str
    contrast: str
    size: tuple[int, int]
    batches: tuple[tuple[int, int], ...]

    def prototxt(self) -> str:
        path = TINY / f"{self.name}.prototxt"
        return path.read_text() if path.exists() else models.prototxt(self.name)


REAL = (
    Setup("googlenet_coco", "pool2/3x3_s2", "pool5/7x7_s1", (224, 224), ((1, 1), (1, 80), (64, 1), (64, 80))),
    Setup("vgg16", "pool4", "fc7", (224, 224), ((1, 1), (1, 20), (64, 1), (64, 20))),
)
REHEARSAL = (
    Setup("mini_inception", "n0", "pp", (15, 18), ((1, 1), (2, 3))),
    Setup("mini_vgg", "p1", "fc7", (12, 12), ((1, 1), (2, 3))),
)


class Bench:
    """One network on the device, and what is timed on it."""

    def __init__(self, setup: Setup, device: torch.device, budget: float) -> None:
        self.setup, self.device, self.budget = setup, device, budget
        self.net = random_net(0, setup.prototxt())
        graph = self.net.graph
        self.top = self.net.default_top()
        self.layer, self.contrast = (graph.resolve(name)[0] for name in (setup.layer, setup.contrast))
        self.finished = graph.resolve(setup.contrast)[-1]  # TorchRay cannot stop where a ReLU then works in place
        self.sweep = TorchSweep(graph, self.top, self.layer, self.contrast, device)
        self.usual = AutogradPeer(graph, self.top, self.layer, self.contrast, device)
        self.module = peer_module(graph, self.top).to(device)
        self.known = next(iter(self.net.forward(self.batch(1), [self.top]).values())).shape[1]
        self.exact = self.attribution("fp64").attribute(self.batch(1), self.targets(1, 1))[0, 0]
        self.peers: dict[tuple[int, int, bool], dict[str, float | str]] = {}

    def attribution(self, dtype: str, graphs: bool | str = "auto") -> ExcitationBackprop:
        layer, contrast = self.setup.layer, self.setup.contrast
        return ExcitationBackprop(self.net, layer, contrast, dtype=dtype, device=self.device, graphs=graphs)

    def batch(self, images: int) -> torch.Tensor:
        """Noise about as large as a photo less its mean; the first image is the same in every batch."""
        draw = torch.Generator().manual_seed(1)
        x = torch.stack([torch.rand(3, *self.setup.size, generator=draw) for _ in range(images)]) * 255 - 110
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    def targets(self, images: int, classes: int) -> torch.Tensor:
        found = torch.arange(images)[:, None] + torch.arange(classes)
        return (found % self.known).to(self.device)

    def distance(self, maps: torch.Tensor, least: float | None = None) -> float:
        got, exact = maps[0, 0].double(), self.exact if least is None else self.exact.clamp(min=least)
        return float((got - exact).abs().sum() / exact.abs().sum())

    def milliseconds(self, case: Callable[[], Any]) -> float:
        return statistics.median(timings(case, self.device, self.budget)) * 1e3

    def torchray(self, images: int, classes: int) -> Callable[[], Any] | None:
        """TorchRay on the same network, one copy of an image per class, as one batch."""
        if not torchray_available():
            return None
        from torchray.attribution.excitation_backprop import contrastive_excitation_backprop

        x = self.batch(images).repeat_interleave(classes, 0).contiguous(memory_format=torch.channels_last)
        places = [self.module.layer_of(name) for name in (self.layer, self.finished, self.top)]
        return partial(
            contrastive_excitation_backprop, self.module, x, self.targets(images, classes).reshape(-1), *places
        )

    def row(self, images: int, classes: int, dtype: str, ceilings: Ceilings, peers: bool) -> Row:
        parts = list(work(self.net, self.setup.size, self.layer, self.contrast, images, classes))
        flop, byte = sum(part.flops for part in parts), sum(part.bytes for part in parts)
        floor = floor_seconds(parts, dtype, ceilings) * 1e3
        row = Row(self.setup.name, self.setup.layer, images, classes, dtype, floor, flop / 1e9, byte / 1e9)
        x, targets = self.batch(images), self.targets(images, classes)
        again = None
        try:
            again = self.measure_ours(row, x, targets)
        except Exception as error:  # whatever it is, the other rows are worth having
            row.notes.append(f"ours: {first_line(error)}")
        if peers:
            self.add_peers(row, x, targets)
        if again is not None:
            row.again_ms = again()
        return row

    def measure_ours(self, row: Row, x: torch.Tensor, targets: torch.Tensor) -> Callable[[], float]:
        """Fills the row's times of ours, and gives what measures once more."""
        eager = partial(self.attribution(row.dtype, graphs=False).attribute, x, targets)
        row.error = self.distance(eager())
        row.eager_ms = self.milliseconds(eager)
        method = self.attribution(row.dtype)
        ours = partial(method.attribute, x, targets)
        row.ours_ms = self.milliseconds(ours)
        row.recorded = not method.why_not_captured
        if method.why_not_captured:
            row.notes.append(f"not a graph: {method.why_not_captured}")
        if not torch.equal(ours(), eager()):
            row.notes.append("the replay's maps are NOT the eager ones")
        return partial(self.milliseconds, ours)

    def add_peers(self, row: Row, x: torch.Tensor, targets: torch.Tensor) -> None:
        """The peers' times, measured once per setting of tf32."""
        key = row.images, row.classes, row.dtype != "fp32"
        if key not in self.peers:
            self.peers[key] = self.measure_peers(x, targets, allowed=key[2])
        for name, value in self.peers[key].items():
            if isinstance(value, str):
                row.notes.append(value)
            else:
                setattr(row, name, value)
        if row.torch_distance is not None and row.torch_distance > OTHER_MAP:
            row.notes.append(f"torch's parts compute another map, {row.torch_distance:.1e} from ours")
        if (row.torchray_distance or 0) > OTHER_MAP:
            row.notes.append(f"TorchRay computes another map, {row.torchray_distance:.1e} from ours: ignore its time")

    @staticmethod
    def recorded(case: Callable[[], Any]) -> Callable[[], Any]:
        """A call as a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            case()
        return graph.replay

    def measure_usual(self, x: torch.Tensor, targets: torch.Tensor) -> dict[str, float | str]:
        copies = x.repeat_interleave(targets.shape[1], 0)[:AT_ONCE].contiguous(memory_format=torch.channels_last)
        classes = targets.reshape(-1)[:AT_ONCE]
        distance = self.distance(self.usual.maps(copies, classes).unsqueeze(1))
        times = targets.numel() / len(copies)
        return {
            "autograd_distance": distance,
            "autograd_ms": self.milliseconds(partial(self.usual.maps, copies, classes)) * times,
        }

    def measure_peers(self, x: torch.Tensor, targets: torch.Tensor, allowed: bool) -> dict[str, float | str]:
        found: dict[str, float | str] = {}
        with tf32(allowed):
            try:
                found["torch_distance"] = self.distance(self.sweep.maps(x, targets))
                found["torch_ms"] = self.milliseconds(lambda: self.sweep.maps(x, targets))
                if self.device.type == "cuda":
                    found["torch_graph_ms"] = self.milliseconds(self.recorded(lambda: self.sweep.maps(x, targets)))
            except RuntimeError as error:
                found["torch's parts"] = f"torch's parts: {first_line(error)}"
            release(self.device)
            try:
                found |= self.measure_usual(x, targets)
            except RuntimeError as error:
                found["the usual way"] = f"the usual way: {first_line(error)}"
            release(self.device)
            try:
                case = self.torchray(*targets.shape)
                if case is not None:
                    found["torchray_distance"] = self.distance(case().detach(), least=0.0)
                    found["torchray_ms"] = self.milliseconds(case)
            except Exception as error:
                found["TorchRay"] = f"TorchRay: {first_line(error)}"
        release(self.device)
        return found


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"


def release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def describe(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    found = {"device": "cpu", "torch": torch.__version__, "ebp_cuda": str(ebp_cuda.ops.build_info())}
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
        found |= {"cudnn": str(torch.backends.cudnn.version()), "driver": output(*DRIVER)}
    found["commit"] = output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    found["TorchRay"] = "1.0.0.2, channels_last" if torchray_available() else f"not installed ({INSTALL})"
    found["tf32 of the peers"] = "off in rows of fp32, on in rows of tf32 and bf16"
    found["date"] = datetime.date.today().isoformat()
    found["command"] = shlex.join(["python", "tools/gpu_bench.py", *sys.argv[1:]])
    return found


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time contrastive excitation backprop on a GPU.")
    parser.add_argument("--dtypes", default=",".join(PRODUCTS), help="of ours (default fp32,tf32,bf16)")
    parser.add_argument("--seconds", type=float, default=200, help="no row is begun after that (default 200)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the results")
    parser.add_argument("--peers", action="store_true", help="time the peers, too")
    parser.add_argument("--predicted", type=Path, help="rows of predict_gpu.py")
    parser.add_argument("--choices", type=Path, help="another table of kernels, of gpu_tune.py")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU with tiny networks")
    return parser.parse_args()


def planned(setups: Sequence[Setup], dtypes: Sequence[str]) -> list[tuple[Setup, int, int, str]]:
    """The rows, the most telling first: many images or many classes before one of each, bf16 and both at once last."""

    def rank(batch: tuple[int, int], dtype: str) -> tuple[bool, bool, int]:
        return min(batch) > 1, dtype == "bf16", -max(batch)

    every = [(setup, *batch, dtype) for setup in setups for batch in setup.batches for dtype in dtypes]
    return sorted(every, key=lambda row: rank((row[1], row[2]), row[3]))


def predictions(file: Path | None) -> dict[tuple[str, int, int, str], float]:
    """Milliseconds by row, as predict_gpu.py wrote them."""
    rows = json.loads(file.read_text()) if file is not None and file.exists() else []
    return {(r["network"], r["images"], r["classes"], r["dtype"]): r["predicted_ms"] for r in rows}


def measure_all(args: argparse.Namespace, device: torch.device, ceilings: Ceilings, keep: Keep) -> bool:
    """Measures the rows that fit the time and keeps each at once; whether all did."""
    stop, rows, skipped = time.monotonic() + args.seconds, [], []
    benches: dict[str, Bench] = {}
    known = predictions(args.predicted)
    for setup, images, classes, dtype in planned(REHEARSAL if args.rehearse else REAL, args.dtypes.split(",")):
        if time.monotonic() > stop:
            skipped.append(f"{setup.name} N={images} K={classes} {dtype}")
            continue
        if setup.name not in benches:
            benches[setup.name] = Bench(setup, device, 0.02 if args.rehearse else 0.3)
        row = benches[setup.name].row(images, classes, dtype, ceilings, args.peers)
        row.predicted_ms = known.get((setup.name, images, classes, dtype))
        rows.append(row)
        release(device)
        keep(rows, skipped)
    keep(rows, skipped)
    return bool(rows) and not skipped and all(row.ours_ms is not None for row in rows if row.dtype == "fp32")


def main() -> int:
    args = parse_arguments()
    if not args.rehearse and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device; --rehearse runs the benchmark's steps on the CPU")
    device = torch.device("cpu" if args.rehearse else "cuda")
    facts, ceilings = describe(device), measure_ceilings(device)
    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in ceilings.flops.items())
    head = "\n".join(f"* {key}: {value}" for key, value in facts.items())
    head += f"\n* measured ceilings: {rates}, {ceilings.bandwidth / 1e9:.0f} GB/s"
    print(head, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', facts['device']).strip('-').lower()}-{facts['date']}"
    name += ("-peers" if args.peers else "") + ("-choices" if args.choices else "")

    texts: list[str] = []

    def keep(rows: list[Row], skipped: list[str]) -> None:
        results = {"facts": facts, "ceilings": asdict(ceilings), "rows": [asdict(r) for r in rows], "skipped": skipped}
        with atomic_path(args.out / f"{name}.json") as path:
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")
        text = f"# c-MWP on {facts['device']}\n\n{head}\n\n{table(rows)}"
        texts.append(text + "".join(f"* not measured, the time was up: {row}\n" for row in skipped))
        if rows and not skipped:  # an ended process leaves what it measured
            print(text.split("\n\n")[2].splitlines()[-1], flush=True)

    with tried(args.choices):
        complete = measure_all(args, device, ceilings, keep)
    print(texts[-1])
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
