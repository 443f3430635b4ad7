"""Which rows a report shows as pictures, and how the numbers of a run are distributed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .run import Row, Run

_PICTURES = 24
"""Of a sheet of the most or least of a number."""
_CLASSES = 20
_OF_A_CLASS = 6
_BARS = 40
_NOT_DRAWN = ("target", "label", "k", "width", "height", "peak_x", "peak_y", "row", "column", "cell", "seed")
"""Columns of numbers whose distribution says nothing."""


@dataclass(frozen=True)
class Sheet:
    """A few rows of the table, shown together."""

    title: str
    rows: list[int]


@dataclass(frozen=True)
class Histogram:
    """How often a column's values fall into bars of one width."""

    column: str
    group: str
    """The method of an evaluation; "" where there is none."""
    counts: list[int]
    low: float
    high: float
    mean: float
    median: float
    missing: int
    """Rows that have no number there."""


def sheets(run: Run) -> list[Sheet]:
    """The contact sheets of a batch; for an evaluation, which keeps no pictures, the rows that went worst."""
    if run.kind == "batch":
        made = [
            Sheet("Highest scores", _ordered(run.rows, "score", highest=True)),
            Sheet("Lowest scores", _ordered(run.rows, "score", highest=False)),
            Sheet("Most mass left", _ordered(run.rows, "mass_left", highest=True)),
            Sheet("Least mass left", _ordered(run.rows, "mass_left", highest=False)),
            *_classes(run.rows),
        ]
    else:
        made = [
            Sheet("Farthest from the class", _ordered(run.rows, "distance", highest=True)),
            Sheet("Least mass where the class is", _ordered(run.rows, "mass", highest=False)),
        ]
    return [sheet for sheet in made if sheet.rows]


def _ordered(rows: Sequence[Row], column: str, *, highest: bool) -> list[int]:
    known = [number for number, row in enumerate(rows) if is_number(row.get(column))]
    return sorted(known, key=lambda number: rows[number][column], reverse=highest)[:_PICTURES]


def _classes(rows: Sequence[Row]) -> list[Sheet]:
    """The highest scores of the classes that occur most."""
    names = [_class_of(row) for row in rows]
    common = [name for name, _ in Counter(name for name in names if name).most_common(_CLASSES)]
    best = sorted(range(len(rows)), key=lambda number: -_or_zero(rows[number].get("score")))
    members: dict[str, list[int]] = {name: [] for name in common}
    for number in best:
        shown = members.get(names[number])
        if shown is not None and len(shown) < _OF_A_CLASS:
            shown.append(number)
    counts = Counter(names)
    return [Sheet(f"Class {name} ({counts[name]} maps)", numbers) for name, numbers in members.items()]


def _class_of(row: Row) -> str:
    name, target = row.get("label"), row.get("target")
    return str(name) if name is not None else "" if target is None else str(target)


def histograms(run: Run) -> list[Histogram]:
    """One for every column of numbers that says something, and for every method of an evaluation."""
    groups: dict[str, list[Row]] = {}
    for row in run.rows:
        groups.setdefault(str(row.get("method") or ""), []).append(row)
    columns = [name for name in run.numbers if name not in _NOT_DRAWN]
    return [_histogram(rows, column, group) for column in columns for group, rows in groups.items()]


def _histogram(rows: Sequence[Row], column: str, group: str) -> Histogram:
    values = np.array([row[column] for row in rows if is_number(row[column])], dtype=np.float64)
    if not len(values):
        return Histogram(column, group, [], 0.0, 0.0, 0.0, 0.0, len(rows))
    counts, edges = np.histogram(values, bins=_BARS)
    mean, median = float(values.mean()), float(np.median(values))
    low, high = float(edges[0]), float(edges[-1])
    return Histogram(column, group, counts.tolist(), low, high, mean, median, len(rows) - len(values))


def summary(run: Run) -> list[dict[str, object]]:
    """Per method of an evaluation: rows, and the mean of every column of numbers and of every hit or miss."""
    table: list[dict[str, object]] = []
    for method in dict.fromkeys(row.get("method") for row in run.rows):
        own = [row for row in run.rows if row.get("method") == method]
        entry: dict[str, object] = {"method": method if method is not None else "all", "rows": len(own)}
        for name in run.columns:
            values = [row[name] for row in own if isinstance(row[name], bool) or is_number(row[name])]
            if values and name not in _NOT_DRAWN:
                entry[f"mean {name}"] = float(np.mean(values))
        table.append(entry)
    return table


def is_number(value: object) -> bool:
    """Whether a value of the table is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _or_zero(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
