"""What a run reads: a folder of images, a list of them, webdataset archives or Parquet files, as one numbered list.

The order is fixed by the names alone, so that row 17 is the same image today and after a restart.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import open_regular, refused_unless_readable
from .archives import ArchiveSource
from .parquet import ParquetSource
from .places import FilePlace, Item, index_name, is_image
from .source import ImageSource, ListingDigest, find_column


def open_source(
    location: str | Path,
    *,
    image: str | None = None,
    name: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
) -> ImageSource:
    """The source at a path.

    Args:
        location: a folder of images (searched recursively, hidden ones left out), of .tar or of .parquet files; one
            such file; or a list of image paths, .txt (one a line) or .csv (with a head line).
        image: the column of a .csv or .parquet with the images, encoded bytes or paths.
        name: the column of a .parquet with their names.
        target: the column with the classes of each; for archives the suffix of the member that holds them ("cls").
        out: a folder that is no part of the source, though it may lie in it: where the run writes.

    Raises:
        InputError: there is nothing to read, or it is damaged.
        UnsupportedError: a library is missing.
    """
    path = Path(location)
    kind, files = _kind_of(path, None if out is None else Path(out))
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


class FolderSource(ImageSource):
    """Every image below a folder; names are paths relative to it."""

    kind = "folder"

    def __init__(self, location: Path, files: Sequence[str]) -> None:
        self.location, self._names = location, files
        self.columns, self.listing = {}, ListingDigest()
        for name in files:
            self.listing.add_file(name, location / name)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Item:
        name = self._names[row]
        return Item(index_name(name), FilePlace(str(self.location / name)))


class ListSource(ImageSource):
    """Paths from a text file, one a line, relative to the file's folder; blank lines and # comments are left out."""

    kind = "list"

    def __init__(self, location: Path) -> None:
        lines = (line.strip() for line in _read_text(location).split("\n"))
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
        self.columns = {}
        self._set(location, numbered, None)

    def _set(self, location: Path, numbered: Sequence[tuple[int, str]], targets: Sequence[str] | None) -> None:
        """Takes paths, each with its line."""
        if not numbered:
            raise InputError(f"{location}: lists no image")
        for line, name in numbered:
            if "\0" in name:
                raise InputError(f"{location}: line {line} has a zero byte in the path {name[:100]!r}")
        self.location, self._names, self._targets = location, [name for _, name in numbered], targets
        self.listing = ListingDigest()
        for name, target in zip(self._names, targets or [""] * len(self._names), strict=True):
            self.listing.add_file(name, location.parent / name)
            self.listing.add(target)

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
        self.columns = {"image": image, "target": target}
        head, rows = _read_table(location)
        columns = [head.index(find_column(location, head, column)) for column in (image, target) if column]
        for line, row in rows:
            if len(row) != len(head):
                raise InputError(f"{location}: line {line} has {len(row)} fields, the head line {len(head)}")
        targets = [row[columns[1]] for _, row in rows] if target else None
        self._set(location, [(line, row[columns[0]]) for line, row in rows], targets)


def _read_table(location: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The head of a .csv, and its rows, each with the line that it ends in."""
    reader = csv.reader(io.StringIO(_read_text(location), newline=""))
    rows: list[tuple[int, list[str]]] = []
    try:
        rows += ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(f"{location}: line {reader.line_num}: {error}") from error
    return (rows[0][1] if rows else []), rows[1:]


def _kind_of(path: Path, out: Path | None) -> tuple[str, list[str]]:
    """The kind of a source, and its files: names below a folder, or the path itself."""
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path has no zero byte")
    if not path.exists():
        raise InputError(f"{path}: no such folder or file")
    if path.is_file():
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            wanted = "a folder, .txt, .csv, .tar or .parquet"
            raise InputError(f"{path}: not a source of images; wanted {wanted}{_hint(path)}")
        return kind, [path.name]
    kinds: dict[str, list[str]] = {}
    for name in sorted(_walk(path, out)):
        kind = "folder" if is_image(name) else _KINDS.get(Path(name).suffix.lower())
        if kind and kind != "list":
            kinds.setdefault(kind, []).append(name)
    if len(kinds) != 1:
        held = ", ".join(f"{len(names)} of kind {kind}" for kind, names in kinds.items())
        raise InputError(f"{path}: wanted images, .tar or .parquet files below it, of one kind; found {held or 'none'}")
    return next(iter(kinds.items()))


_KINDS = {".txt": "list", ".csv": "list", ".tar": "archive", ".parquet": "parquet"}


def _hint(path: Path) -> str:
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        return "; its members can be read one by one only from an uncompressed archive"
    return "; `ebp-cuda attribute` takes single images" if is_image(path.name) else ""


def _walk(folder: Path, out: Path | None) -> Iterator[str]:
    """Files below a folder, relative to it, without hidden ones and without what runs wrote, `out` above all.

    Raises InputError where a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be listed: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        kept = [name for name in folders if not name.startswith(".") and not _holds_run(Path(place, name), out)]
        folders[:] = kept
        relative = os.path.relpath(place, folder)
        for name in files:
            if not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}"


def _holds_run(folder: Path, out: Path | None) -> bool:
    """Whether a run writes into a folder now, or wrote into it: its index and its pictures are no images."""
    if out is not None and out.is_dir() and folder.samefile(out):
        return True
    return all((folder / name).exists() for name in ("manifest.json", "index", "shards"))


def _read_text(path: Path) -> str:
    with refused_unless_readable(path, "cannot be read"), open_regular(path) as file:
        return file.read().decode("utf-8-sig", "surrogateescape")
