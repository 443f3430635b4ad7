"""What a report shows of a run: a table with a row per map, what failed, and how the run was made.

`open_run` reads the folder of `ebp-cuda batch` or of `ebp-cuda eval`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..batch.reading import Reader
from ..errors import InputError
from ..eval.records import part_files, read_part
from ..files import open_regular, refused_unless_readable
from .command import command_of

Row = dict[str, Any]
"""A row of the table by column; None where nothing is known."""

BATCH_COLUMNS = ("image", "target", "label", "score", "mass_left", "peak_x", "peak_y", "width", "height")


@dataclass(frozen=True)
class Place:
    """Where the map and the picture of a row of a batch lie."""

    shard: str
    row: int
    k: int


@dataclass(frozen=True)
class Run:
    """A run as the report shows it."""

    folder: Path
    kind: str
    """"batch" or "evaluation"."""
    command: str
    """The line that made it; "" where the folder does not say."""
    settings: list[tuple[str, str]]
    columns: list[str]
    rows: list[Row]
    places: list[Place]
    """Of every row, for a batch; empty for an evaluation."""
    failures: list[tuple[str, str]]
    """Images without a map, and why."""

    @property
    def images(self) -> int:
        """Images of the run, those that failed included."""
        return len({row.get("image") for row in self.rows}) + len(self.failures)

    @property
    def numbers(self) -> list[str]:
        """The columns that hold numbers."""
        return [name for name in self.columns if _is_numeric([row[name] for row in self.rows])]


def open_run(folder: str | Path) -> Run:
    """Reads a run's folder.

    Raises:
        InputError: the folder is neither a run of `batch` nor of `eval`, or a file of it is damaged.
        UnsupportedError: pyarrow is missing.
    """
    folder = Path(folder)
    if (folder / "manifest.json").exists():
        return _batch(folder)
    if (folder / "settings.json").exists():
        return _evaluation(folder)
    raise InputError(f"{folder}: no run of `ebp-cuda batch` (manifest.json) or `ebp-cuda eval` (settings.json)")


def _batch(folder: Path) -> Run:
    reader = Reader(folder)
    manifest = reader.manifest
    entries: list[Row] = reader.index().to_pylist() if reader.shards else []
    mapped = [entry for entry in entries if entry["error"] is None]
    failures = [(entry["image"], entry["error"]) for entry in entries if entry["error"] is not None]
    columns = _known(BATCH_COLUMNS, mapped)
    rows = [{name: entry.get(name) for name in columns} for entry in mapped]
    places = [Place(entry["shard"], entry["row"], entry["k"]) for entry in mapped]
    return Run(folder, "batch", command_of(folder), _flat(manifest), columns, rows, places, failures)


def _evaluation(folder: Path) -> Run:
    path = folder / "settings.json"
    with refused_unless_readable(path, "cannot be read"), open_regular(path) as file:
        settings = json.loads(file.read().decode())
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of an evaluation")
    rows = [row for part in part_files(folder) for row in read_part(part)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in columns} for row in rows]
    return Run(folder, "evaluation", command_of(folder), _flat(settings), _known(columns, rows), rows, [], [])


def _known(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The columns in which something is known."""
    return [name for name in columns if any(row.get(name) is not None for row in rows)]


def _flat(tree: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """The settings as lines, "preprocess.size" for what lies in another; digests and what is long are cut."""
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{before}{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            lines.append((f"{before}{key}", text if len(text) <= 200 else f"{text[:200]}..."))
    return lines


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
