"""Times every admitted schedule of every contraction of the two networks: which tiles and splits are best?

    python tools/gpu_tune.py LAUNCHES.json [--driver build/gpu_driver] [--out FILE] [--rehearse]

LAUNCHES.json is predict_gpu.py's. Prints a line per layer, the largest losses first: the chosen schedule, the best one,
and what the choice loses. --out gets every time. --rehearse times a few small layers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WAYS = {"normalizer": "up", "sweep": "down", "forward and normalizer": "pair"}
TIME = re.compile(r"^(\S+) time ([\d.]+) us: (.*)$")
CHOSEN = re.compile(r"^(\S+) chosen (\w+): (.*)$")


@dataclass
class Timed:
    """What was measured of one layer."""

    layer: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Microseconds by schedule."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Schedules by precision."""

    def loss(self, precision: str) -> tuple[float, str] | None:
        """Microseconds that the choice loses, and the best schedule of that precision."""
        times = {name: time for name, time in self.seconds.items() if name.endswith(f" {precision}")}
        chosen = self.chosen.get(precision, "")
        if chosen not in times:
            return None
        best = min(times, key=lambda name: times[name])
        return times[chosen] - times[best], best


def layers(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The distinct layers as the driver reads them; all of ours have stride 1 and planes of one size."""
    seen = set()
    for row in rows:
        for launch in row["traced"]:
            label = re.sub(r" \d+x\d+$", "", launch["label"])
            if label not in WAYS or launch["kernel"] == "depthwise":
                continue
            source, weight = ([int(n) for n in part.split("x")] for part in launch["layer"].split())
            batch, _, height, width = source
            above, below, kernel, across = weight
            if kernel == across and (line := (batch, below, above, height, width, kernel, WAYS[label])) not in seen:
                seen.add(line)
                name = f"{line[-1]}:{batch}x{height}x{width}:{above}x{below}x{kernel}x{kernel}"
                yield f"{name} {batch} {below} {above} {height} {width} {kernel} 1 {kernel // 2} {line[-1]}"


def measured(output: str) -> list[Timed]:
    """The driver's lines, by layer."""
    timed: dict[str, Timed] = {}
    for line in output.splitlines():
        if match := TIME.match(line):
            timed.setdefault(match[1], Timed(match[1])).seconds[match[3]] = float(match[2])
        elif match := CHOSEN.match(line):
            timed.setdefault(match[1], Timed(match[1])).chosen[match[2]] = match[3]
    return list(timed.values())


def table(timed: list[Timed], most: int = 25) -> str:
    """The layers whose choice loses most."""
    losses = [(loss, t, p) for t in timed for p in t.chosen if (loss := t.loss(p)) is not None]
    losses.sort(key=lambda item: -item[0][0])
    lines = [f"{'layer':40} {'chosen':28} {'us':>9}  {'best':28} {'us':>9}"]
    for (_, best), t, precision in losses[:most]:
        chosen = t.chosen[precision]
        lines.append(f"{t.layer:40} {chosen:28} {t.seconds[chosen]:9.1f}  {best:28} {t.seconds[best]:9.1f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time every schedule of the networks' contractions.")
    parser.add_argument("launches", type=Path, help="what predict_gpu.py --launches wrote")
    parser.add_argument("--driver", type=Path, default=Path("build/gpu_driver"))
    parser.add_argument("--out", type=Path, help="file for all times")
    parser.add_argument("--rehearse", action="store_true", help="a few small layers")
    args = parser.parse_args()
    lines = list(layers(json.loads(args.launches.read_text())))
    if args.rehearse:
        lines = lines[:3]
    command = [str(args.driver), "time", "1" if args.rehearse else "5"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    timed = measured(done.stdout)
    if args.out:
        args.out.write_text(json.dumps([asdict(one) for one in timed]))
    print(table(timed))
    print(f"{len(timed)} of {len(lines)} layers timed{'' if done.returncode == 0 else ', then: ' + done.stdout[-300:]}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
