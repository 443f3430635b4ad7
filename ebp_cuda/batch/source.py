"""A source of images: what every kind of it has, and what several kinds need."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .places import Item


class ListingDigest:
    """What a listing says of its images, as two digests: one of what decides the rows, one of when files were changed.

    The content of the images is in neither: to read it all would cost as much as to decode it. In another process it
    says the same, and nothing can be added there: hashlib's state does not pickle.
    """

    def __init__(self) -> None:
        self._rows, self._times = hashlib.sha256(), hashlib.sha256()
        self._received: tuple[str, str] | None = None
        """Rows and times, in a process that got them from another one."""

    def __getstate__(self) -> tuple[str, str]:
        return self.rows, self.times

    def __setstate__(self, digests: tuple[str, str]) -> None:
        self._received = digests

    def add(self, *facts: object) -> None:
        """Notes names, offsets, targets, in the order of the images."""
        self._rows.update(("\0".join(map(str, facts)) + "\n").encode("utf-8", "surrogatepass"))

    def add_file(self, name: str, path: Path) -> None:
        """Notes a file: its name, its size, and when it was last written to or replaced."""
        try:
            facts = os.stat(path)
        except (OSError, ValueError):  # it will be a row with an error
            self.add(name, -1)
            return
        self.add(name, facts.st_size)
        self._times.update(f"{facts.st_mtime_ns} {facts.st_ctime_ns}\n".encode())

    @property
    def rows(self) -> str:
        """sha256 of what was noted, but for the times."""
        return self._received[0] if self._received else self._rows.hexdigest()

    @property
    def times(self) -> str:
        """sha256 of the times."""
        return self._received[1] if self._received else self._times.hexdigest()


class ImageSource(ABC):
    """A numbered list of images; holds their names, none of their content."""

    kind: str
    location: Path
    listing: ListingDigest
    columns: dict[str, str | None]
    """Which columns or members hold the images, their names and their targets; None where nothing does."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, row: int) -> Item:
        """Image number `row`, from 0 on."""

    def describe(self) -> dict[str, object]:
        """What the manifest says of it."""
        digests = {"digest": self.listing.rows, "modified": self.listing.times}
        return {"kind": self.kind, "path": str(self.location), "images": len(self), "columns": self.columns, **digests}

    def first(self, count: int) -> ImageSource:
        """The first `count` images of it. Raises InputError where that is none."""
        if count < 1:
            raise InputError(f"limit={count}: at least one image was wanted")
        return _Beginning(self, count)


class _Beginning(ImageSource):
    def __init__(self, source: ImageSource, count: int) -> None:
        self._source, self._count = source, min(count, len(source))
        self.kind, self.location = source.kind, source.location
        self.listing, self.columns = source.listing, source.columns

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Item:
        return self._source[row]


def find_column(location: Path, head: Sequence[str], name: str) -> str:
    """`name`, where the table has such a column. Raises InputError."""
    if name not in head:
        raise InputError(f"{location}: no column '{name}'; there are {', '.join(head) or 'none'}")
    return name


def find_image_column(location: Path, head: Sequence[str], name: str | None) -> str:
    """`name`, or the first of the usual names for a column of images. Raises InputError."""
    column = name or next((usual for usual in _IMAGE_COLUMNS if usual in head), None)
    if column is None:
        raise InputError(f"{location}: which column holds the images? (name it; there are {', '.join(head)})")
    return find_column(location, head, column)


_IMAGE_COLUMNS = ("image", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "path", "image_path", "file")


def offsets() -> array[int]:
    """An empty list of 64-bit numbers, eight bytes each."""
    return array("q")
