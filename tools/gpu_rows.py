"""What the GPU benchmark measured of one network, batch and precision, and the table of all rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """One measured row; times in milliseconds, medians."""

    network: str
    layer: str
    images: int
    classes: int
    dtype: str
    floor_ms: float
    gflop: float
    gbyte: float
    predicted_ms: float | None = None
    """By predict_gpu.py."""
    ours_ms: float | None = None
    again_ms: float | None = None
    eager_ms: float | None = None
    """Ours without CUDA graphs."""
    recorded: bool = False
    """Whether `ours_ms` is the time of replays."""
    error: float | None = None
    """Relative L1 of our first map from our own in float64."""
    torch_ms: float | None = None
    torch_graph_ms: float | None = None
    """The yardstick as one CUDA graph."""
    torch_distance: float | None = None
    """Relative L1 of the yardstick's first map from ours in float64."""
    autograd_ms: float | None = None
    """The usual way (autograd_peer.py), one copy of an image per class."""
    autograd_distance: float | None = None
    torchray_ms: float | None = None
    torchray_distance: float | None = None
    """The same of TorchRay's first map, which is clipped at 0, from ours clipped."""
    notes: list[str] = field(default_factory=list)


def number(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.3f}"


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    head = "network | N | K | dtype | predicted ms | ms | again | eager ms | maps/s | TFLOP/s | GB/s | of floor"
    head += " | x torch parts"
    head += " | x torch parts as a graph | x usual way | x TorchRay | error"
    lines = [f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    for row in rows:
        cells: list[Any] = [f"{row.network} {row.layer}", row.images, row.classes, row.dtype]
        cells.append(number(row.predicted_ms))
        if row.ours_ms is None:
            cells += ["-"] * 6 + [f"floor {row.floor_ms:.3f} ms", "-", "-", "-", "-", "-"]
        else:
            peers = row.torch_ms, row.torch_graph_ms, row.autograd_ms, row.torchray_ms
            cells += [f"{row.ours_ms:.3f}", number(row.again_ms), number(row.eager_ms)]
            cells += [f"{row.images * row.classes / row.ours_ms * 1e3:,.0f}"]
            cells += [f"{row.gflop / row.ours_ms:.2f}", f"{row.gbyte / row.ours_ms * 1e3:.0f}"]
            cells += [f"{row.floor_ms / row.ours_ms:.0%} of {row.floor_ms:.3f} ms"]
            cells += ["-" if peer is None else f"{peer / row.ours_ms:.2f}" for peer in peers]
            cells += [f"{row.error:.1e}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    notes = [f"* {r.network} N={r.images} K={r.classes} {r.dtype}: {note}" for r in rows for note in r.notes]
    return "\n".join([*lines, "", *notes]) + "\n"
