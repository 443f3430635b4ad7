"""What c-MWP should take on a GPU that nobody has at hand: a prediction, not a measurement.

    python tools/predict_gpu.py [--json FILE] [--launches FILE] [--rehearse]

Traces the launches of a recorded call on meta tensors (gpu_trace.py), gives each the time that gpu_model.py finds for
an H200, and prints for GoogLeNet and VGG16, per precision: milliseconds, maps per second, the share of the
computed floor (gpu_floor.py), launches, the time by kind of launch and the largest layers. --json writes the rows
{network, images, classes, dtype, predicted_ms, floor_ms, share, launches}; --launches every distinct launch with its
time. --rehearse takes two tiny networks. Exit code 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import random_net  # noqa: E402
from gpu_bench import REAL, REHEARSAL, Setup  # noqa: E402
from gpu_floor import PRODUCTS, Ceilings, floor_seconds, work  # noqa: E402
from gpu_model import H200, Launch, Machine, seconds  # noqa: E402
from gpu_trace import merged, trace  # noqa: E402

from ebp_cuda.files import atomic_path  # noqa: E402
from ebp_cuda.net import Net  # noqa: E402

LARGEST = 5


@dataclass(frozen=True)
class Prediction:
    """One network, batch and precision."""

    network: str
    images: int
    classes: int
    dtype: str
    predicted_ms: float
    floor_ms: float
    share: float
    """The floor over the prediction."""
    launches: int

    @staticmethod
    def of(setup: Setup, net: Net, images: int, classes: int, dtype: str, launches: Sequence[Launch]) -> Prediction:
        """The prediction for the distinct launches of one call."""
        layer, contrast = (net.graph.resolve(name)[0] for name in (setup.layer, setup.contrast))
        parts = list(work(net, setup.size, layer, contrast, images, classes))
        floor = floor_seconds(parts, dtype, ceilings(H200)) * 1e3
        total = sum(launch.count * seconds(launch) for launch in launches) * 1e3
        count = sum(launch.count for launch in launches)
        return Prediction(setup.name, images, classes, dtype, total, floor, floor / total, count)


def ceilings(machine: Machine) -> Ceilings:
    """The machine's rates as the floor wants them."""
    return Ceilings({name: getattr(machine, name) for name in PRODUCTS}, machine.memory)


def batches(setup: Setup) -> Iterator[tuple[int, int]]:
    """The batches of the benchmark, without many images and many classes at once."""
    yield from sorted((batch for batch in setup.batches if 1 in batch), reverse=True)


def kinds(launches: Sequence[Launch]) -> list[str]:
    """Time by kind of launch, the longest first."""
    times: dict[str, float] = {}
    for launch in launches:
        times[launch.label] = times.get(launch.label, 0.0) + launch.count * seconds(launch) * 1e6
    return [f"{label} {time:.0f}" for label, time in sorted(times.items(), key=lambda item: -item[1])]


def largest(launches: Sequence[Launch]) -> list[str]:
    """The launches that take longest together with those like them."""
    order = sorted(launches, key=lambda launch: -launch.count * seconds(launch))
    return [
        f"{launch.count} x {launch.label} [{launch.layer}] {launch.count * seconds(launch) * 1e6:.0f}"
        for launch in order[:LARGEST]
    ]


def table(rows: Sequence[Prediction]) -> str:
    """The predictions in Markdown."""
    lines = ["| network | N | K | dtype | predicted ms | maps/s | of floor | launches |", "|" + " --- |" * 8]
    for row in rows:
        rate = row.images * row.classes / row.predicted_ms * 1e3
        cells = [row.network, row.images, row.classes, row.dtype, f"{row.predicted_ms:.2f}", f"{rate:,.0f}"]
        cells += [f"{row.share:.0%} of {row.floor_ms:.2f} ms", row.launches]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Predict the time of contrastive maps on an H200.")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--launches", type=Path, help="file for every distinct launch and its time")
    parser.add_argument("--rehearse", action="store_true", help="two tiny networks")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    rows, every = [], []
    for setup in REHEARSAL if args.rehearse else REAL:
        net = random_net(0, setup.prototxt())
        for images, classes in batches(setup):
            for dtype in PRODUCTS:
                launches = merged(trace(net, setup.layer, setup.contrast, setup.size, images, classes, dtype))
                row = Prediction.of(setup, net, images, classes, dtype, launches)
                rows.append(row)
                every.append(asdict(row) | {"traced": [asdict(launch) for launch in launches]})
                print(f"{row.network} N={images} K={classes} {dtype}, us: {', '.join(kinds(launches)[:8])}")
                print(f"  largest: {'; '.join(largest(launches))}")
    print(f"\nPredicted for an H200, not measured:\n\n{table(rows)}")
    for path, content in ((args.json, [asdict(row) for row in rows]), (args.launches, every)):
        if path is not None:
            with atomic_path(path) as partial:
                partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
