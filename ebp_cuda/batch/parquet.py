"""Parquet files with a column of images: encoded bytes, a struct {bytes, path}, or paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import require
from ..files import open_regular, refused_unless_readable
from .places import CellPlace, FilePlace, Item, index_name
from .source import ImageSource, ListingDigest, find_column, find_image_column, offsets


class ParquetSource(ImageSource):
    """The rows of Parquet files. Only names, targets and paths are read beforehand, never the images."""

    kind = "parquet"

    def __init__(
        self, location: Path, files: Sequence[str], image: str | None, name: str | None, target: str | None
    ) -> None:
        self.location, self.listing = location, ListingDigest()
        self._folder = location if location.is_dir() else location.parent
        self._files = files
        self._image, self._name, self._target = image, name, target
        self._names: list[str] = []
        self._by_path: bool | None = None
        self._paths: list[str] = []
        self._targets: list[str] = []
        self._file, self._group, self._row = offsets(), offsets(), offsets()
        for index, file in enumerate(files):
            path = self._folder / file
            self.listing.add_file(file, path)
            open_regular(path).close()
            with refused_unless_readable(path, "not a readable Parquet file"):
                self._list(index, path)
        if not len(self):
            raise InputError(f"{location}: the Parquet files have no rows")
        self.columns = {"image": self._image, "name": name, "target": target}

    def _list(self, index: int, path: Path) -> None:
        parquet = require("pyarrow.parquet", "batch", "a Parquet source")
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            self._image = find_image_column(path, schema.names, self._image)
            self._check_types(path, schema)
            texts = {column for column in (self._name, self._target) if column}
            texts |= {self._image} if self._by_path else set()
            first = len(self)
            for group in range(file.num_row_groups):
                facts = file.metadata.row_group(group)
                self.listing.add(group, facts.num_rows, facts.total_byte_size)
                table = file.read_row_group(group, columns=sorted(texts)) if texts else None
                self._add(index, group, facts.num_rows, table, first)

    def _check_types(self, path: Path, schema: Any) -> None:
        """Refuses a column that cannot be what it is taken for, once and before the run."""
        assert self._image is not None
        kind = _holds(schema.field(self._image).type)
        if kind not in ("text", "bytes"):
            wanted = "encoded images (binary, or a struct with 'bytes') or their paths (string)"
            raise _wrong_type(path, schema, self._image, wanted)
        if self._by_path not in (None, kind == "text"):
            before = "paths" if self._by_path else "encoded images"
            raise InputError(f"{path}: column '{self._image}' holds {kind}, and in {self._files[0]} {before}")
        self._by_path = kind == "text"
        for column, kinds, wanted in (
            (self._name, ("text", "number"), "names (string or integer)"),
            (self._target, ("text", "number", "list"), "classes (string, integer, or a list of these)"),
        ):
            if column and _holds(schema.field(find_column(path, schema.names, column)).type) not in kinds:
                raise _wrong_type(path, schema, column, wanted)

    def _add(self, file: int, group: int, rows: int, table: Any, first: int) -> None:
        names = table.column_names if table else []
        texts = {column: [_text(value) for value in table[column].to_pylist()] for column in names}
        start = len(self) - first
        self._file.extend([file] * rows)
        self._group.extend([group] * rows)
        self._row.extend(range(rows))
        numbered = [f"{self._files[file]}#{number}" for number in range(start, start + rows)]
        paths = texts[self._image or ""] if self._by_path else []
        self._names += texts[self._name] if self._name else paths or numbered
        self._paths += paths
        self._targets += texts[self._target] if self._target else []
        for values in texts.values():
            self.listing.add(*values)
        for path in paths:
            self.listing.add_file(path, self._folder / path)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, row: int) -> Item:
        path = str(self._folder / self._files[self._file[row]])
        place: FilePlace | CellPlace = CellPlace(path, self._group[row], self._row[row], self._image or "")
        if self._by_path:
            place = FilePlace(str(self._folder / self._paths[row]))
        return Item(index_name(self._names[row]), place, self._targets[row] if self._targets else None)


def _holds(kind: Any) -> str:
    """What a column of an Arrow type can serve as: "text", "bytes", "number", "list" of texts or numbers, or ""."""
    types = require("pyarrow.types", "batch", "a Parquet source")
    if types.is_dictionary(kind):
        return _holds(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind):
        return "list" if _holds(kind.value_type) in ("text", "number") else ""
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return "bytes" if index >= 0 and _holds(kind.field(index).type) == "bytes" else ""
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return "number" if types.is_integer(kind) else ""


def _wrong_type(path: Path, schema: Any, column: str, wanted: str) -> InputError:
    return InputError(f"{path}: column '{column}' holds {schema.field(column).type}; wanted {wanted}")


def _text(value: Any) -> str:
    """A cell as a target or name is written: [281, 282] becomes "281,282"."""
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
