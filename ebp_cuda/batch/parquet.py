"""Parquet files with a column of images: encoded bytes, a struct {bytes, path}, or paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import require
from .places import CellPlace, FilePlace, Item, index_name
from .source import Source, file_size, find_column, find_image_column, listing_digest, offsets


class ParquetSource(Source):
    """The rows of Parquet files. Only names, targets and paths are read beforehand, never the images."""

    kind = "parquet"

    def __init__(
        self, location: Path, files: Sequence[str], image: str | None, name: str | None, target: str | None
    ) -> None:
        self.location = location
        self._folder = location if location.is_dir() else location.parent
        self._files = files
        self._image, self._target = image, target
        self._names: list[str] = []
        self._paths: list[str] | None = None
        self._targets: list[str] = []
        self._file, self._group, self._row = offsets(), offsets(), offsets()
        for index, file in enumerate(files):
            self._list(index, self._folder / file, name)
        if not len(self):
            raise InputError(f"{location}: the Parquet files have no rows")
        sizes = ((file, file_size(self._folder / file)) for file in files)
        self.digest = listing_digest(sizes, [self._image or "", *self._targets])

    def _list(self, index: int, path: Path, name: str | None) -> None:
        parquet, types = require("pyarrow.parquet", "batch", "a Parquet source"), require("pyarrow.types", "batch", "")
        try:
            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                self._image = find_image_column(path, schema.names, self._image)
                kind = schema.field(self._image).type
                by_path = types.is_string(kind) or types.is_large_string(kind)
                wanted = {find_column(path, schema.names, column) for column in (name, self._target) if column}
                wanted |= {self._image} if by_path else set()
                self._paths = [] if by_path and self._paths is None else self._paths
                first = len(self)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=sorted(wanted)) if wanted else None
                    self._add(index, group, file.metadata.row_group(group).num_rows, table, name, first)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable Parquet file: {error}") from error

    def _add(self, file: int, group: int, rows: int, table: Any, name: str | None, first: int) -> None:
        texts = (
            {column: [_text(v) for v in table[column].to_pylist()] for column in table.column_names} if table else {}
        )
        start = len(self) - first
        self._file.extend([file] * rows)
        self._group.extend([group] * rows)
        self._row.extend(range(rows))
        if self._paths is not None:
            self._paths += texts[self._image or ""]
        if self._target:
            self._targets += texts[self._target]
        numbered = [f"{self._files[file]}#{number}" for number in range(start, start + rows)]
        self._names += texts[name] if name else texts[self._image or ""] if self._paths is not None else numbered

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, row: int) -> Item:
        path = str(self._folder / self._files[self._file[row]])
        if self._paths is not None:
            place: FilePlace | CellPlace = FilePlace(str(self._folder / self._paths[row]))
        else:
            place = CellPlace(path, self._group[row], self._row[row], self._image or "")
        return Item(index_name(self._names[row]), place, self._targets[row] if self._targets else None)


def _text(value: Any) -> str:
    """A cell as a target or name is written: [281, 282] becomes "281,282"."""
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
