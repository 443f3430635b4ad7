"""One shard on its way to disk: maps as they come, the index when all are there."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..attribution import Setting
from ..errors import InputError
from ..extras import require
from ..files import atomic_path, cut_name
from ..targets import class_name
from .decoding import Decoded
from .index import index_schema
from .output import Output
from .overlays import write_overlays
from .photos import Inputs, Result

_STEM_BYTES = 80
"""What an image's name takes of an overlay's file name."""


@dataclass(frozen=True)
class Mapped:
    """Images of one shape with their maps; of an image with an error only the name and the error count."""

    images: Sequence[Decoded]
    targets: npt.NDArray[np.int64] | None = None
    """[N, K]"""
    maps: npt.NDArray[np.float32] | None = None
    """[N, K, h, w]"""
    scores: npt.NDArray[np.float32] | None = None
    """[N, K]: of the targets."""
    mass_left: npt.NDArray[np.float32] | None = None
    """[N, K]: as in `Attribution`."""


@dataclass(frozen=True)
class How:
    """What every row of the index says of the method."""

    layer: str
    contrast_layer: str | None
    rules: str
    labels: Sequence[str] | None = None


class _Dropped(Exception):
    pass


class ShardWriter:
    """Writes one shard: `add` any number of times, in any order of rows, then `finish` or `drop`."""

    def __init__(self, output: Output, shard: str, how: How, overlays: bool) -> None:
        self._output, self._shard, self._how, self._overlays = output, shard, how, overlays
        self._rows: list[dict[str, Any]] = []
        self._stack = ExitStack()
        self._archive: zipfile.ZipFile | None = None
        self.finished = False

    def add(self, group: Mapped) -> None:
        """Writes a group's maps and pictures. Raises InputError where they cannot be written."""
        try:
            self._add(group)
        except OSError as error:
            path = self._output.maps_path(self._shard)
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    def _add(self, group: Mapped) -> None:
        if self._archive is None:
            temporary = self._stack.enter_context(atomic_path(self._output.maps_path(self._shard)))
            self._stack.callback(_sync, temporary)
            self._archive = self._stack.enter_context(zipfile.ZipFile(temporary, "w"))
        if group.maps is None:
            self._rows += [self._row(image, error=image.error) for image in group.images]
            return
        for n, image in enumerate(group.images):
            self._store(image.row, group.maps[n])
            self._rows += [self._row(image, **self._facts(image, group, n, k)) for k in range(len(group.maps[n]))]
        if self._overlays:
            self._draw(group)

    def finish(self) -> None:
        """Gives the maps their name, then the index."""
        self._stack.close()
        arrow, parquet = require("pyarrow", "batch", "the index"), require("pyarrow.parquet", "batch", "the index")
        rows = sorted(self._rows, key=lambda row: (row["row"], row["k"]))
        table = arrow.Table.from_pylist(rows, schema=index_schema())
        with atomic_path(self._output.index_path(self._shard)) as temporary:
            parquet.write_table(table, temporary)
            _sync(temporary)
        self.finished = True

    def drop(self) -> None:
        """Leaves nothing of the shard behind."""
        with suppress(_Dropped, OSError, InputError), self._stack:  # closing the archive writes once more
            raise _Dropped

    def _row(self, image: Decoded, **facts: Any) -> dict[str, Any]:
        """A row of the index; what is not known of an image without a map stays empty."""
        how = self._how
        method = {"layer": how.layer, "contrast_layer": how.contrast_layer, "rules": how.rules}
        height, width = image.size or (None, None)
        photo = {"image": image.name, "width": width, "height": height, "content": image.content}
        return {**photo, **method, "shard": self._shard, "row": image.row, "k": 0, **facts}

    def _facts(self, image: Decoded, group: Mapped, n: int, k: int) -> dict[str, Any]:
        """What the index says of map k of image n of a group."""
        assert group.maps is not None and group.targets is not None
        assert group.scores is not None and group.mass_left is not None and image.size is not None
        attribution, target = group.maps[n, k], int(group.targets[n, k])
        y, x = np.unravel_index(int(attribution.argmax()), attribution.shape)
        return {
            "target": target,
            "label": class_name(target, self._how.labels) if self._how.labels else None,
            "score": float(group.scores[n, k]),
            "mass_left": float(group.mass_left[n, k]),
            "peak_x": (float(x) + 0.5) * image.size[1] / attribution.shape[1],
            "peak_y": (float(y) + 0.5) * image.size[0] / attribution.shape[0],
            "shape": list(attribution.shape),
            "digest": hashlib.sha256(attribution.tobytes()).hexdigest(),
            "k": k,
        }

    def _store(self, row: int, maps: npt.NDArray[np.float32]) -> None:
        # not np.savez: it wants all arrays at once, and stamps the members with the hour, so that no two runs are equal
        assert self._archive is not None
        with self._archive.open(zipfile.ZipInfo(f"{row}.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(maps), allow_pickle=False)

    def _draw(self, group: Mapped) -> None:
        assert group.maps is not None and group.targets is not None
        assert group.scores is not None and group.mass_left is not None
        images = [image for image in group.images if image.picture is not None]
        names = [picture_name(image.row, image.name) for image in images]
        inputs = Inputs(torch.empty(0), [image.picture for image in images if image.picture is not None], names)
        how = self._how
        setting = Setting(how.layer, how.contrast_layer, how.rules)
        result = Result(group.maps, group.targets, group.scores, group.mass_left, setting)
        write_overlays(result, inputs, how.labels, self._output.overlay_folder(self._shard))


def _sync(path: Path) -> None:
    """Waits until a file is on the disk: after a power cut its name must not stand for less."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def picture_name(row: int, name: str) -> str:
    """How the file names of an image's overlays begin, by its row in the shard and its name."""
    return f"{row:06d}_{_stem(name)}"


def _stem(name: str) -> str:
    """The last part of a name without its suffix, fit for a file name."""
    stem = name.replace("#", "_").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return cut_name("".join(c if c.isalnum() or c in "-_." else "-" for c in stem), _STEM_BYTES)
