"""A source of images: what every kind of it has, and what several kinds need."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from .places import Item


class Source(ABC):
    """A numbered list of images; holds their names, none of their content."""

    kind: str
    location: Path
    digest: str
    """sha256 of the names and sizes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, row: int) -> Item:
        """Image number `row`, from 0 on."""

    def describe(self) -> dict[str, object]:
        """What the manifest says of it."""
        return {"kind": self.kind, "path": str(self.location), "images": len(self), "digest": self.digest}


def find_column(location: Path, head: Sequence[str], wanted: str) -> str:
    """`wanted`, where the table has such a column. Raises InputError."""
    if wanted not in head:
        raise InputError(f"{location}: no column '{wanted}'; there are {', '.join(head) or 'none'}")
    return wanted


def find_image_column(location: Path, head: Sequence[str], wanted: str | None) -> str:
    """`wanted`, or the first of the usual names for a column of images. Raises InputError."""
    found = wanted or next((column for column in _IMAGE_COLUMNS if column in head), None)
    if found is None:
        raise InputError(f"{location}: which column holds the images? (name it; there are {', '.join(head)})")
    return find_column(location, head, found)


_IMAGE_COLUMNS = ("image", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "path", "image_path", "file")


def listing_digest(entries: Iterable[tuple[str, int]], targets: Iterable[str] = ()) -> str:
    """sha256 over names and sizes, and over the targets where the source gives them."""
    digest = hashlib.sha256()
    for name, size in entries:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    for target in targets:
        digest.update(f"{target}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_size(path: Path) -> int:
    """Bytes, or -1 where there is no such file: it will be a row with an error."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def offsets() -> array[int]:
    """An empty list of 64-bit numbers, eight bytes each."""
    return array("q")
