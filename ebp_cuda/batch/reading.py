"""Reading what a run wrote."""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..extras import require
from .output import Output


@dataclass(frozen=True)
class Entry:
    """One image of a run."""

    image: str
    targets: list[int]
    """K classes; none where the image failed."""
    scores: list[float]
    maps: npt.NDArray[np.float32] | None
    """[K, h, w], raw; None where the image failed."""
    error: str | None


class Reader:
    """A run's images in the order of the source, from the shards that are whole; `manifest` is its settings.

    Iterating holds one image's maps at a time. Raises InputError where DIR is no run or a shard is damaged.
    """

    def __init__(self, folder: str | Path, *, verify: bool = False) -> None:
        self._output, self._verify = Output(folder), verify
        self.manifest = self._output.read_manifest()
        self.shards = self._output.shards()

    def __iter__(self) -> Iterator[Entry]:
        for shard in self.shards:
            yield from self._shard(shard)

    def index(self) -> Any:
        """The whole index, a pyarrow.Table: a row per map, and one for every image without."""
        parquet, arrow = (require(name, "batch", "the index") for name in ("pyarrow.parquet", "pyarrow"))
        if not self.shards:
            raise InputError(f"{self._output.folder}: no shard is finished yet")
        tables = [parquet.ParquetFile(self._output.index_path(shard)).read() for shard in self.shards]
        return arrow.concat_tables(tables).unify_dictionaries()

    def _shard(self, shard: str) -> Iterator[Entry]:
        parquet = require("pyarrow.parquet", "batch", "the index")
        path = self._output.maps_path(shard)
        try:
            rows = parquet.ParquetFile(self._output.index_path(shard)).read().to_pylist()
            with np.load(path, allow_pickle=False) as arrays:
                for row, group in itertools.groupby(rows, key=lambda entry: entry["row"]):
                    yield self._entry(path, arrays, row, list(group))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: the shard is damaged: {error}") from error

    def _entry(self, path: Path, arrays: Any, row: int, group: list[dict[str, Any]]) -> Entry:
        first = group[0]
        if first["error"] is not None:
            return Entry(first["image"], [], [], None, first["error"])
        maps = arrays[str(row)]
        if self._verify and [hashlib.sha256(one.tobytes()).hexdigest() for one in maps] != [
            one["digest"] for one in group
        ]:
            raise InputError(f"{path}: the maps of row {row} ({first['image']}) are not those that were written")
        return Entry(first["image"], [one["target"] for one in group], [one["score"] for one in group], maps, None)
