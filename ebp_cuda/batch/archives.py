"""Webdataset archives: tar files whose members `key.jpg`, `key.cls`, ... with one key belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import open_regular, refused_unless_readable
from .places import FilePlace, Item, index_name, is_image
from .source import ImageSource, ListingDigest, offsets

_TARGET_BYTES = 1 << 16
"""What the member with an image's classes may take."""


class ArchiveSource(ImageSource):
    """The images in tar archives, in the order in which they lie; of several images with one key all are taken.

    The archives' heads are walked once at the start; later each image is read on its own, from its place.
    """

    kind = "archive"

    def __init__(self, location: Path, files: Sequence[str], target: str | None) -> None:
        self.location = location
        self.columns, self.listing = {"target": target}, ListingDigest()
        self._folder = location if location.is_dir() else location.parent
        self._files = files
        self._names: list[str] = []
        self._targets: list[str] | None = [] if target else None
        self._archive, self._offset, self._size = offsets(), offsets(), offsets()
        for index, name in enumerate(files):
            path = self._folder / name
            self.listing.add_file(name, path)
            with refused_unless_readable(path, "not a readable uncompressed tar archive"):
                self._list(index, path, target)
        if not self._names:
            raise InputError(f"{location}: the archives hold no image")

    def _list(self, index: int, path: Path, target: str | None) -> None:
        keys: list[str] = []
        targets: dict[str, str] = {}
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every head it has seen
                key, suffix = _split(member.name)
                if not member.isfile():
                    continue
                if is_image(member.name):
                    if member.issparse():
                        raise InputError(f"{path}: '{member.name}' is sparse; its bytes do not lie in one piece")
                    self._add(index, member)
                    keys.append(key)
                elif target and suffix == target:
                    targets[key] = _read_target(path, archive, member)
        if self._targets is not None:
            for key in keys:
                if key not in targets:
                    raise InputError(f"{path}: '{key}' has an image and no member .{target}")
                self._targets.append(targets[key])
                self.listing.add(targets[key])

    def _add(self, index: int, member: tarfile.TarInfo) -> None:
        self._names.append(member.name)
        self._archive.append(index)
        self._offset.append(member.offset_data)
        self._size.append(member.size)
        self.listing.add(member.name, member.offset_data, member.size, member.mtime)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Item:
        archive = self._files[self._archive[row]]
        place = FilePlace(str(self._folder / archive), self._offset[row], self._size[row])
        return Item(index_name(f"{archive}/{self._names[row]}"), place, self._targets[row] if self._targets else None)


def _read_target(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _TARGET_BYTES:
        raise InputError(f"{path}: '{member.name}' has {member.size} bytes; classes take at most {_TARGET_BYTES}")
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    return content.read().decode("utf-8", "replace").strip()


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: everything up to the first dot of its base name, and what comes after it."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix
