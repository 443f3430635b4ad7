"""Webdataset archives: tar files whose members `key.jpg`, `key.cls`, ... with one key belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .places import FilePlace, Item, index_name, is_image
from .source import Source, file_size, listing_digest, offsets


class ArchiveSource(Source):
    """The images in tar archives, in the order in which they lie; of several images with one key all are taken.

    The archives' heads are walked once at the start; later each image is read on its own, from its place.
    """

    kind = "archive"

    def __init__(self, location: Path, files: Sequence[str], target: str | None) -> None:
        self.location = location
        self._folder = location if location.is_dir() else location.parent
        self._files = files
        self._names: list[str] = []
        self._targets: list[str] | None = [] if target else None
        self._archive, self._offset, self._size = offsets(), offsets(), offsets()
        for index, name in enumerate(files):
            self._list(index, self._folder / name, target)
        if not self._names:
            raise InputError(f"{location}: the archives hold no image")
        sizes = ((name, file_size(self._folder / name)) for name in files)
        self.digest = listing_digest(sizes, self._targets or ())

    def _list(self, index: int, path: Path, target: str | None) -> None:
        keys: list[str] = []
        targets: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every head it has seen
                    key, suffix = _split(member.name)
                    if member.isfile() and is_image(member.name):
                        self._names.append(member.name)
                        self._archive.append(index)
                        self._offset.append(member.offset_data)
                        self._size.append(member.size)
                        keys.append(key)
                    elif target and member.isfile() and suffix == target:
                        held = archive.extractfile(member)
                        assert held is not None  # a regular file
                        targets[key] = held.read().decode("utf-8", "replace").strip()
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{path}: not a readable uncompressed tar archive: {error}") from error
        if self._targets is not None:
            for key in keys:
                if key not in targets:
                    raise InputError(f"{path}: '{key}' has an image and no member .{target}")
                self._targets.append(targets[key])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Item:
        archive = self._files[self._archive[row]]
        place = FilePlace(str(self._folder / archive), self._offset[row], self._size[row])
        return Item(index_name(f"{archive}/{self._names[row]}"), place, self._targets[row] if self._targets else None)


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: everything up to the first dot of its base name, and what comes after it."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix
