"""What a run reads: a folder of images, a list of them, webdataset archives or Parquet files, as one numbered list.

The order is fixed by the names alone, so that row 17 is the same image today and after a restart.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from .archives import ArchiveSource
from .parquet import ParquetSource
from .places import FilePlace, Item, index_name, is_image
from .source import Source, file_size, find_column, listing_digest


def open_source(location: str | Path, *, image: str | None = None, name: str | None = None, target: str | None = None) -> Source:  # fmt: skip  # noqa: E501
    """The source at a path: a folder of images (searched recursively, hidden ones left out), of .tar or of .parquet
    files; one such file; or a list of image paths, .txt (one a line) or .csv (with a head line).

    image, name, target: columns of a .csv or .parquet with the images (encoded bytes or paths), their names, and the
    classes wanted of each; for archives, `target` is the suffix of the member that holds them ("cls").
    Raises InputError where there is nothing to read, UnsupportedError where a library is missing.
    """
    path = Path(location)
    kind, files = _kind_of(path)
    if kind == "list" and path.suffix.lower() == ".csv":
        return TableSource(path, image or "image", name, target)
    if kind == "parquet":
        return ParquetSource(path, files, image, name, target)
    if image or name:
        raise InputError(f"{path}: only .csv and .parquet sources have columns to name")
    if kind == "archive":
        return ArchiveSource(path, files, target)
    if target:
        raise InputError(f"{path}: a {kind} says nothing of targets ('@{target}'); a .csv, .parquet or .tar can")
    return FolderSource(path, files) if kind == "folder" else ListSource(path)


class FolderSource(Source):
    """Every image below a folder; names are paths relative to it."""

    kind = "folder"

    def __init__(self, location: Path, files: Sequence[str]) -> None:
        self.location, self._names = location, files
        self.digest = listing_digest((name, file_size(location / name)) for name in files)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Item:
        name = self._names[row]
        return Item(index_name(name), FilePlace(str(self.location / name)))


class ListSource(Source):
    """Paths from a text file, one a line, relative to the file's folder; blank lines and # comments are left out."""

    kind = "list"

    def __init__(self, location: Path) -> None:
        lines = (line.strip() for line in _read_text(location).splitlines())
        self._set(location, [line for line in lines if line and not line.startswith("#")], None)

    def _set(self, location: Path, names: Sequence[str], targets: Sequence[str] | None) -> None:
        if not names:
            raise InputError(f"{location}: lists no image")
        self.location, self._names, self._targets = location, names, targets
        sizes = ((name, file_size(location.parent / name)) for name in names)
        self.digest = listing_digest(sizes, targets or ())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Item:
        name = self._names[row]
        place = FilePlace(str(self.location.parent / name))
        return Item(index_name(name), place, self._targets[row] if self._targets else None)


class TableSource(ListSource):
    """The same from a .csv with a head line: a column of paths, and one of targets where wanted."""

    def __init__(self, location: Path, image: str, name: str | None, target: str | None) -> None:
        if name:
            raise InputError(f"{location}: in a .csv images are named by their paths; no column for names is taken")
        table = list(csv.reader(_read_text(location).splitlines()))
        head = table[0] if table else []
        columns = [head.index(find_column(location, head, column)) for column in (image, target) if column]
        for number, row in enumerate(table[1:], 2):
            if len(row) != len(head):
                raise InputError(f"{location}: line {number} has {len(row)} fields, the head line {len(head)}")
        self._set(
            location, [row[columns[0]] for row in table[1:]], [r[columns[1]] for r in table[1:]] if target else None
        )


def _kind_of(path: Path) -> tuple[str, list[str]]:
    """The kind of a source, and its files: names below a folder, or the path itself."""
    if not path.exists():
        raise InputError(f"{path}: no such folder or file")
    if path.is_file():
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            wanted = "a folder, .txt, .csv, .tar or .parquet"
            raise InputError(f"{path}: not a source of images; wanted {wanted}{_hint(path)}")
        return kind, [path.name]
    found: dict[str, list[str]] = {}
    for name in sorted(_walk(path)):
        kind = "folder" if is_image(name) else _KINDS.get(Path(name).suffix.lower())
        if kind and kind != "list":
            found.setdefault(kind, []).append(name)
    if len(found) != 1:
        held = ", ".join(f"{len(names)} of kind {kind}" for kind, names in found.items())
        raise InputError(f"{path}: wanted images, .tar or .parquet files below it, of one kind; found {held or 'none'}")
    return next(iter(found.items()))


_KINDS = {".txt": "list", ".csv": "list", ".tar": "archive", ".parquet": "parquet"}


def _hint(path: Path) -> str:
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        return "; its members can be read one by one only from an uncompressed archive"
    return "; `ebp-cuda attribute` takes single images" if is_image(path.name) else ""


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder, relative to it, hidden ones left out. Raises InputError where one cannot be listed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be listed: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(place, folder)
        for name in files:
            if not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
