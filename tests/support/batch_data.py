"""Small data sets for the tests of runs over many images, and images that no decoder survives."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import ebp_cuda
from ebp_cuda import batch
from ebp_cuda.batch.places import Item
from ebp_cuda.batch.sources import FolderSource
from ebp_cuda.models import digits

COUNT = 21
BROKEN = {5: b"no image", 6: b""}
SMALL = {"batch": 4, "shard_size": 8, "workers": 0}


def method() -> ebp_cuda.ExcitationBackprop:
    """c-MWP of the digits network."""
    return ebp_cuda.ExcitationBackprop(digits.load(), digits.LAYER, digits.CONTRAST_LAYER)


def photos(count: int = COUNT) -> dict[str, bytes]:
    """Encoded images by name, 112x112; rows 5 and 6 are broken."""
    random = np.random.default_rng(0)
    found = {}
    for row in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(file, "PNG")
        found[f"{'ab'[row % 2]}/{row:03d}.png"] = BROKEN.get(row, file.getvalue())
    return dict(sorted(found.items()))


def write_folder(folder: Path, images: dict[str, bytes]) -> Path:
    for name, data in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, images: dict[str, bytes], classes: list[str]) -> Path:
    """A webdataset archive: an image and a .cls for each key."""
    with tarfile.open(path, "w") as archive:
        for (name, data), target in zip(images.items(), classes, strict=True):
            for member, content in ((name, data), (name.replace(".png", ".cls"), target.encode())):
                head = tarfile.TarInfo(member)
                head.size = len(content)
                archive.addfile(head, io.BytesIO(content))
    return path


def write_parquet(path: Path, images: dict[str, bytes], column: list[Any], **more: list[Any]) -> Path:
    pq.write_table(pa.table({"name": list(images), "image": column, **more}), path, row_group_size=9)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run and its bytes; the manifest aside, which names paths."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != "manifest.json"}


def digests(out: Path) -> list[str | None]:
    """Of every map, in the order of the source."""
    found: list[str | None] = batch.open(out).index()["digest"].to_pylist()
    return found


@dataclass(frozen=True)
class DyingPlace:
    """An image that takes its process along."""

    def read(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


@dataclass(frozen=True)
class HangingPlace:
    """An image that never arrives."""

    def read(self) -> bytes:
        time.sleep(3600)
        return b""


@dataclass(frozen=True)
class DyingOncePlace:
    """An image that takes its process along the first time, and is there the next time."""

    path: str
    marker: str

    def read(self) -> bytes:
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Path(self.path).read_bytes()


class KillingSource(FolderSource):
    """A folder, one of whose images kills the first worker that reads it."""

    def __init__(self, location: Path, names: list[str], row: int, marker: Path) -> None:
        super().__init__(location, names)
        self._deadly, self._marker = row, marker

    def __getitem__(self, row: int) -> Item:
        item = super().__getitem__(row)
        if row != self._deadly:
            return item
        return replace(item, place=DyingOncePlace(item.place.path, str(self._marker)))
