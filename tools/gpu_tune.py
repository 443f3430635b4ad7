"""Times every admitted schedule of every contraction of the two networks: which tiles and splits are best?

    python tools/gpu_tune.py LAUNCHES.json [--driver build/gpu_driver] [--times FILE] [--choices FILE]
        [--seconds S] [--rehearse]

LAUNCHES.json is predict_gpu.py's; the layers that should take longest come first. The file of times gets every time as
it is measured, so that nothing is lost where the process is ended. Then prints a line per layer, the largest losses
first: the chosen schedule, the best one, and what the choice loses; and the rows that the times speak for, as they
would stand in csrc/cuda/choices.h. The file of choices holds them for `gpu_bench.py --choices`. --rehearse: a few
layers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_choices import Timed, proposed  # noqa: E402
from gpu_model import Launch, seconds  # noqa: E402

from ebp_cuda.ops.choices import choices  # noqa: E402

WAYS = {"normalizer": "up", "sweep": "down", "forward": "up", "forward and normalizer": "pair"}
LINE = re.compile(r"^(\S+) (?:time (?P<us>[\d.]+) us: |chosen (?P<precision>\w+): |class (?P<way>\w+) )(?P<rest>.*)$")


@dataclass
class Layer:
    """One line for the driver, and what its launches should take in all."""

    line: str
    seconds: float = 0.0


def layers(rows: list[dict[str, Any]]) -> list[str]:
    """The distinct layers as the driver reads them, the longest first; all have stride 1 and planes of one size."""
    known: dict[str, Layer] = {}
    for row in rows:
        for traced in row["traced"]:
            label = re.sub(r" \d+x\d+$", "", traced["label"])
            if label not in WAYS or traced["kernel"] == "depthwise":
                continue
            source, weight = ([int(n) for n in part.split("x")] for part in traced["layer"].split())
            batch, _, height, width = source
            above, below, kernel, across = weight
            if kernel != across:
                continue
            way = WAYS[label]
            name = f"{way}:{batch}x{height}x{width}:{above}x{below}x{kernel}x{kernel}"
            line = f"{name} {batch} {below} {above} {height} {width} {kernel} 1 {kernel // 2} {way}"
            launch = Launch(**traced)
            known.setdefault(name, Layer(line)).seconds += launch.count * seconds(launch)
    return [layer.line for layer in sorted(known.values(), key=lambda layer: -layer.seconds)]


def measured(output: Iterable[str]) -> list[Timed]:
    """The driver's lines, by layer."""
    timed: dict[str, Timed] = {}
    for line in output:
        match = LINE.match(line.strip())
        if match is None:
            continue
        layer = timed.setdefault(match[1], Timed(match[1]))
        if match["us"]:
            layer.microseconds[match["rest"]] = float(match["us"])
        elif match["precision"]:
            layer.chosen[match["precision"]] = match["rest"]
        else:
            layer.way = match["way"]
            layer.large_tiles, layer.small_tiles, layer.steps = map(int, match["rest"].split())
    return list(timed.values())


def table(timed: list[Timed], most: int = 25) -> str:
    """The layers whose choice loses most."""
    losses = [(loss, t, p) for t in timed for p in t.chosen if (loss := t.loss(p)) is not None]
    losses.sort(key=lambda item: -item[0][0])
    lines = [f"{'layer':40} {'chosen':28} {'us':>9}  {'best':28} {'us':>9}"]
    for (_, best), t, precision in losses[:most]:
        chosen = t.chosen[precision]
        lines.append(f"{t.layer:40} {chosen:28} {t.microseconds[chosen]:9.1f}  {best:28} {t.microseconds[best]:9.1f}")
    return "\n".join(lines)


def drive(command: list[str], lines: list[str], to: Path, limit: float) -> tuple[list[str], str]:
    """Runs the driver on the layers until the limit, and writes what it says as it comes; that, and how it ended."""
    said: list[str] = []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    ending = threading.Timer(limit, process.kill)
    ending.start()
    try:
        feeder = threading.Thread(target=_feed, args=(process.stdin, "\n".join(lines) + "\n"), daemon=True)
        feeder.start()
        with to.open("w") as stream:
            for line in process.stdout:
                said.append(line)
                stream.write(line)
                stream.flush()
        code = process.wait()
    finally:
        late = not ending.is_alive()
        ending.cancel()
    return said, "the time was up" if late else f"exit code {code}" if code else ""


def _feed(stream: Any, text: str) -> None:
    try:
        stream.write(text)
        stream.close()
    except BrokenPipeError:  # the driver ended early, and its output says why
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description="Time every schedule of the networks' contractions.")
    parser.add_argument("launches", type=Path, help="what predict_gpu.py --launches wrote")
    parser.add_argument("--driver", type=Path, default=Path("build/gpu_driver"))
    parser.add_argument("--times", type=Path, default=Path("build/times.txt"), help="file for what the driver says")
    parser.add_argument("--choices", type=Path, default=Path("build/choices.json"), help="file for the proposed rows")
    parser.add_argument("--seconds", type=float, default=600, help="no more than that (default 600)")
    parser.add_argument("--rehearse", action="store_true", help="a few small layers")
    args = parser.parse_args()
    lines = layers(json.loads(args.launches.read_text()))
    if args.rehearse:
        lines = lines[-6:]
    command = [str(args.driver), "time", "1" if args.rehearse else "5"]
    said, trouble = drive(command, lines, args.times, args.seconds)
    timed = measured(said)
    rows = proposed(timed, choices())
    args.choices.write_text(json.dumps(rows))
    print(table(timed))
    print("\nthe rows that these times speak for:", *rows, sep="\n  ")
    print(f"{len(timed)} of {len(lines)} layers timed{', ' + trouble if trouble else ''}")
    return 0 if timed and trouble in ("", "the time was up") else 1


if __name__ == "__main__":
    sys.exit(main())
