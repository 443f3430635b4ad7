"""The grid pointing game of docs/evaluation.md: runs it on both networks, prints the tables and draws the figure.

    python tools/grid_evidence.py [--out DIR] [--mosaics 96]

Takes an hour or two on two cores; a run that was stopped goes on. What was chosen by looking (layers, their sum) was
chosen on one half of the photos; the table shows the other half too. The figure, DIR/grid.png, has misses and hits of
c-MWP beside Grad-CAM.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebp_cuda.eval.grid import standard_error
from ebp_cuda.eval.grid_command import Drawing, draw_examples, grid_mosaics, open_network
from ebp_cuda.eval.grid_run import GridMethod, grid_methods

RUNS = {
    "digits": ("digits", ()),
    "efficientnet_lite0": ("efficientnet_lite0", ("--rules", "caffe,conserving")),
    "efficientnet_lite0-3x3": ("efficientnet_lite0", ("--rules", "conserving", "--cells", "3")),
}
"""Name of the run -> network and further options."""

Row = Mapping[str, Any]


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("grid"))
    parser.add_argument("--mosaics", type=int, default=96)
    options = parser.parse_args()
    for name, (model, further) in RUNS.items():
        out = options.out / name
        command = ["eval", "grid", "--model", model, "--method", "all", "--mosaics", str(options.mosaics)]
        subprocess.run([sys.executable, "-m", "ebp_cuda", *command, "--out", str(out), *further], check=True)
        print(f"\n### {name}\n\n{table(read(out))}")
    draw(read(options.out / "efficientnet_lite0"), options.mosaics, options.out / "grid.png")


def draw(rows: Sequence[Row], mosaics: int, path: Path) -> None:
    """The pairs of EfficientNet-Lite0 with the least and the most mass in the right cell, c-MWP beside Grad-CAM."""
    drawing = Drawing(
        "efficientnet_lite0", cells=2, tile=112, mosaics=mosaics, confidence=0.3, seed=0
    )  # as the command
    network = open_network(drawing, None)
    methods, _ = grid_methods(network.mosaic, ["c-mwp", "grad-cam"], ["blocks.10"], network.contrast, ["conserving"])
    named = [
        GridMethod(method.name.replace("c-mwp", "c-mwp conserving"), method.layer, method.maps) for method in methods
    ]
    draw_examples(network, grid_mosaics(network, drawing), named, rows, 6, path)


def read(folder: Path) -> list[Row]:
    """The rows of a run."""
    from pyarrow import parquet

    return [row for part in sorted(folder.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]


def halves(rows: Sequence[Row]) -> tuple[set[str], set[str]]:
    """The photos in two halves, by chance and always the same: the one to choose on, the one to report."""
    photos = sorted({row["photo"] for row in rows})
    np.random.default_rng(1).shuffle(photos)
    return set(photos[: len(photos) // 2]), set(photos[len(photos) // 2 :])


def table(rows: Sequence[Row]) -> str:
    """Markdown: mass and maximum with their standard errors over mosaics, of all pairs and of the reported half."""
    _, reported = halves(rows)
    lines = [
        "| method | read at | mass | maximum | mass, held-out photos | maximum, held-out photos |",
        "|---|---|---|---|---|---|",
    ]
    for method, layer in dict.fromkeys((row["method"], row["layer"]) for row in rows):
        own = [row for row in rows if (row["method"], row["layer"]) == (method, layer)]
        held_out = [row for row in own if row["photo"] in reported]
        cells = [_cell(part, key) for part in (own, held_out) for key in ("mass", "hit")]
        lines.append(f"| {method} | {layer.replace('+', ' + ') or 'pixels'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], key: str) -> str:
    values, mosaics = [float(row[key]) for row in rows], [row["image"] for row in rows]
    return f"{np.mean(values):.3f} ± {standard_error(values, mosaics):.3f}"


if __name__ == "__main__":
    main()
