"""What an evaluation measured, image by image, on disk: so that a run goes on where it stopped, and can be looked into.

FOLDER/settings.json         what was asked for; a run with other settings is refused
FOLDER/part-000000.parquet   the rows of some images; pandas.read_parquet(FOLDER) reads all of them
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import require
from ..files import atomic_path

Row = dict[str, Any]

_FLUSH_SECONDS = 20.0


class Records:
    """The rows of one evaluation; every row has "image", the picture's name.

    `with records:` around calls of `add`, each with all the rows of some images, writes what is pending at the end, an
    interruption included.

    Raises InputError where `folder` holds a run with other settings, naming the difference, or a broken part, and
    UnsupportedError without pyarrow.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._parquet, self._arrow = _parquet(), require("pyarrow", "eval", "an evaluation's record")
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {folder}: the folder cannot be made: {error.strerror}") from error
        self._check(json.loads(json.dumps(dict(settings))))
        self._parts = part_files(folder)
        self.rows: list[Row] = [row for part in self._parts for row in read_part(part)]
        self.done = {row["image"] for row in self.rows}
        self._pending: list[Row] = []
        self._flushed = time.monotonic()

    def _check(self, settings: dict[str, Any]) -> None:
        path = self.folder / "settings.json"
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not a settings file: {error}") from error
        for key in sorted({*before, *settings}):
            if before.get(key) != settings.get(key):
                raise InputError(
                    f"--out {self.folder} holds a run with {key} = {before.get(key)!r}, "
                    f"now it is {settings.get(key)!r}; give another folder"
                )

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Takes all the rows of some images; they reach the disk after a while, in a part that is whole or absent."""
        self.rows += rows
        self._pending += rows
        self.done |= {row["image"] for row in rows}
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            number = int(self._parts[-1].stem.removeprefix("part-")) + 1 if self._parts else 0
            path = self.folder / f"part-{number:06d}.parquet"
            with atomic_path(path) as temporary:
                self._parquet.write_table(self._arrow.Table.from_pylist(self._pending), temporary)
            self._parts.append(path)
        self._pending, self._flushed = [], time.monotonic()


def part_files(folder: Path) -> list[Path]:
    """The parts of a run's record, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_part(path: Path) -> list[Row]:
    """The rows of a part. Raises InputError for a broken one and UnsupportedError without pyarrow."""
    try:
        rows: list[Row] = _parquet().read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise InputError(f"{path} cannot be read ({error}); delete it to measure its images again") from error
    return rows


def _parquet() -> Any:
    return require("pyarrow.parquet", "eval", "an evaluation's record")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A table as csv, whole or not at all; the first row's keys are the columns."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    return path
