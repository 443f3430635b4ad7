"""Where an image's bytes lie: in a file, in a stretch of a tar archive, in a cell of a Parquet file, in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..errors import InputError
from ..extras import require
from ..files import open_regular, refused_unless_readable

MAX_BYTES = 1 << 30
"""What an encoded image may take: it is read as a whole."""


@dataclass(frozen=True)
class FilePlace:
    """A file, or `size` bytes of it from `offset` on, as the members of an uncompressed tar archive lie."""

    path: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes. Raises InputError where the file is missing, unreadable, shorter, or larger than an image."""
        with refused_unless_readable(self.path, "cannot be read"), open_regular(self.path) as file:
            held = os.fstat(file.fileno()).st_size - self.offset
            size = held if self.size is None else self.size
            if size > held:
                raise InputError(f"{self.path}: ends {size - held} bytes before the member at {self.offset} does")
            if size > MAX_BYTES:
                raise InputError(f"{self.path}: {size} bytes; an image may have {MAX_BYTES}")
            file.seek(self.offset)
            return file.read(size)


@dataclass(frozen=True)
class CellPlace:
    """One value of a column of encoded images: binary, or a struct with a field "bytes"."""

    path: str
    group: int
    row: int
    column: str

    def read(self) -> bytes:
        """The bytes. Raises InputError where the file cannot be read or the cell is null."""
        with refused_unless_readable(self.path, f"row {self.row} of row group {self.group} cannot be read"):
            facts = os.stat(self.path)
            version = facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
            value = _column(self.path, self.group, self.column, version)[self.row].as_py()
        value = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(value, bytes):
            raise InputError(f"{self.path}: column '{self.column}', row {self.row} of row group {self.group} is null")
        return value


@dataclass(frozen=True)
class MemoryPlace:
    """Encoded bytes, or a decoded image uint8 or float [H, W, 3]."""

    content: bytes | npt.NDArray[Any]

    def read(self) -> bytes | npt.NDArray[Any]:
        """What it holds."""
        return self.content


Place = FilePlace | CellPlace | MemoryPlace


@dataclass(frozen=True)
class Item:
    """One image of a source."""

    name: str
    """As the index calls it; the suffix .npy says that it holds an array."""
    place: Place
    target: str | None = None
    """The classes wanted of this image, where the source says so."""


# A column chunk is decompressed as a whole: images in a row come from the same one, so the last one is kept, for as
# long as its file is the same.
@lru_cache(maxsize=1)
def _column(path: str, group: int, column: str, version: tuple[int, ...]) -> Any:
    parquet = require("pyarrow.parquet", "batch", "a Parquet source")
    open_regular(path).close()
    with refused_unless_readable(path, f"row group {group} cannot be read"), parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)


def index_name(name: str) -> str:
    """`name` as valid Unicode: bytes of a file name that are not UTF-8 are written as \\xNN."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair that stands for no byte
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for an image or an array."""
    return Path(name).suffix.lower() in _SUFFIXES


_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
_SUFFIXES = frozenset((*_PHOTOS, ".ppm", ".pgm", ".pnm", ".npy"))
