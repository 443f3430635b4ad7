"""From times of schedules to the table of choices: by class of shape, the tile and the blocks that lose least."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ebp_cuda.ops.choices import FACTORS, WAYS, Row, other_choices

EDGES = (512, 256, 128, 64, 32, 16, 0)
"""The classes: so many tiles of 128 x 64 or more."""
BLOCKS = (264, 396, 1, 132, 792)
"""Wanted in all: multiples of an H200's processors, and no splits; the first of equally good ones is taken."""
MOST_SPLITS, LEAST_STEPS = 32, 4
"""As in csrc/cuda/schedule.h: parts of a sum, and steps of a part."""


@dataclass
class Timed:
    """What was measured of one layer."""

    layer: str
    way: str = ""
    large_tiles: int = 0
    small_tiles: int = 0
    steps: int = 0
    microseconds: dict[str, float] = field(default_factory=dict)
    """By schedule: method, loads, "large" or "small", splits, precision."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Schedules by precision."""

    def loss(self, precision: str) -> tuple[float, str] | None:
        """Microseconds that the choice loses, and the best schedule of that precision."""
        times = {name: time for name, time in self.microseconds.items() if name.endswith(f" {precision}")}
        chosen = self.chosen.get(precision, "")
        if chosen not in times:
            return None
        best = min(times, key=lambda name: times[name])
        return times[chosen] - times[best], best

    def reads_quads(self, factors: str) -> bool:
        """Whether a kernel that has a choice of tiles takes it."""
        return any(name.split()[1] != "single" and name.endswith(f" {factors}") for name in self.microseconds)

    def time_of(self, factors: str, large: bool, blocks: int) -> float | None:
        """With the tile and the blocks of a row; of numbers of splits the next lower one that was timed."""
        tiles = self.large_tiles if large else self.small_tiles
        splits = max(1, min(blocks // max(1, tiles), self.steps // LEAST_STEPS, MOST_SPLITS))
        nearest = 1 << (splits.bit_length() - 1)
        size = "large" if large else "small"
        times = [
            time
            for name, time in self.microseconds.items()
            if name.split()[1] != "single" and name.split()[2:] == [size, str(nearest), factors]
        ]
        return min(times, default=None)


def tried(file: Path | None) -> AbstractContextManager[None]:
    """Within, kernels are chosen by the rows that gpu_tune.py wrote, where there is a file of them."""
    return nullcontext() if file is None else other_choices([Row(*row) for row in json.loads(file.read_text())])


def proposed(timed: Sequence[Timed], today: Sequence[Row]) -> list[Row]:
    """The rows that the times speak for; today's where nothing was timed."""
    rows: list[Row] = []
    for way in WAYS:
        for factors in FACTORS:
            best = list(_best_rows(way, factors, [t for t in timed if t.way == way and t.reads_quads(factors)]))
            rows += best or [row for row in today if (row.way, row.factors) == (way, factors)]
    return rows


def _best_rows(way: str, factors: str, layers: Sequence[Timed]) -> Iterator[Row]:
    """From the class of most tiles down; classes that were not timed go with the one above, neighbors alike as one."""
    best: tuple[bool, int] | None = None
    start = 0
    for edge, above in zip(EDGES, (float("inf"), *EDGES), strict=False):
        option = _best_option(factors, [layer for layer in layers if edge <= layer.large_tiles < above])
        if option is not None and option != best:
            if best is not None:
                yield Row(way, factors, 0, start, 0, *best)
            best = option
        start = edge
    if best is not None:
        yield Row(way, factors, 0, 0, 0, *best)


def _best_option(factors: str, layers: Sequence[Timed]) -> tuple[bool, int] | None:
    """The tile and the blocks that take least in all."""
    totals: dict[tuple[bool, int], float] = {}
    for blocks in BLOCKS:
        for large in (True, False):
            times = [layer.time_of(factors, large, blocks) for layer in layers]
            known = [time for time in times if time is not None]
            if known and len(known) == len(times):
                totals[large, blocks] = sum(known)
    return min(totals, key=lambda option: totals[option]) if totals else None
