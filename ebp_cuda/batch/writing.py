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

from ..errors import InputError
from ..extras import require
from ..files import atomic_path
from .decoding import Decoded
from .output import Output
from .photos import Inputs, Result, write_overlays


@dataclass(frozen=True)
class Mapped:
    """Images of one shape with their maps; of an image with an error only the name and the error count."""

    images: Sequence[Decoded]
    maps: npt.NDArray[np.float32] | None = None
    """[N, K, h, w]"""
    targets: npt.NDArray[np.int64] | None = None
    """[N, K]"""
    scores: npt.NDArray[np.float32] | None = None
    """[N, K]: of the targets."""


class _Dropped(Exception):
    pass


class ShardWriter:
    """Writes one shard: `add` any number of times, in any order of rows, then `finish` or `drop`."""

    def __init__(self, output: Output, shard: str, layer: str, labels: Sequence[str] | None, overlays: bool) -> None:
        self._output, self._shard, self._layer = output, shard, layer
        self._labels, self._overlays = labels, overlays
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
        if group.maps is None or group.targets is None or group.scores is None:
            self._rows += [self._entry(image, error=image.error) for image in group.images]
            return
        for image, maps, targets, scores in zip(group.images, group.maps, group.targets, group.scores, strict=True):
            self._store(image.row, maps)
            for k, attribution in enumerate(maps):
                digest = hashlib.sha256(attribution.tobytes()).hexdigest()
                found = {"target": int(targets[k]), "score": float(scores[k]), "k": k, "digest": digest}
                self._rows.append(self._entry(image, shape=list(attribution.shape), **found))
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

    def _entry(self, image: Decoded, **found: Any) -> dict[str, Any]:
        empty = {"target": None, "score": None, "k": 0, "shape": None, "digest": None, "error": None}
        place = {"shard": self._shard, "row": image.row, "layer": self._layer}
        return {"image": image.name, **empty, **place, **found}

    def _store(self, row: int, maps: npt.NDArray[np.float32]) -> None:
        # not np.savez: it wants all arrays at once, and stamps the members with the hour, so that no two runs are equal
        assert self._archive is not None
        with self._archive.open(zipfile.ZipInfo(f"{row}.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(maps), allow_pickle=False)

    def _draw(self, group: Mapped) -> None:
        assert group.maps is not None and group.targets is not None and group.scores is not None
        images = [image for image in group.images if image.picture is not None]
        names = [f"{image.row:06d}_{_stem(image.name)}" for image in images]
        inputs = Inputs(torch.empty(0), [image.picture for image in images if image.picture is not None], names)
        result = Result(group.maps, group.targets, group.scores)
        write_overlays(result, inputs, self._labels, self._output.overlay_folder(self._shard))


def _sync(path: Path) -> None:
    """Waits until a file is on the disk: after a power cut its name must not stand for less."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def index_schema() -> Any:
    """The index's columns: a row per map, and one for every image without."""
    arrow = require("pyarrow", "batch", "the index of a run")
    text = arrow.dictionary(arrow.int32(), arrow.string())
    return arrow.schema(
        [
            ("image", arrow.string()),
            ("target", arrow.int32()),
            ("score", arrow.float32()),
            ("layer", text),
            ("shape", arrow.list_(arrow.int32())),
            ("digest", arrow.string()),
            ("shard", text),
            ("row", arrow.int32()),
            ("k", arrow.int32()),
            ("error", arrow.string()),
        ]
    )


def _stem(name: str) -> str:
    """The last part of a name without its suffix, fit for a file name."""
    stem = name.replace("#", "_").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem)[:80]
