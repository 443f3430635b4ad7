"""Reading what a run wrote."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..extras import require
from ..files import open_regular, refused_unless_readable
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
        tables = []
        for shard in self.shards:
            path = self._output.index_path(shard)
            with refused_unless_readable(path, "the shard is damaged"):
                tables.append(parquet.ParquetFile(path).read())
        return arrow.concat_tables(tables).unify_dictionaries()

    def _shard(self, shard: str) -> Iterator[Entry]:
        parquet = require("pyarrow.parquet", "batch", "the index")
        path = self._output.maps_path(shard)
        with refused_unless_readable(path, "the shard is damaged"):
            rows = parquet.ParquetFile(self._output.index_path(shard)).read().to_pylist()
            open_regular(path).close()
            arrays = np.load(path, allow_pickle=False)
        with arrays:
            for row, group in itertools.groupby(rows, key=lambda entry: entry["row"]):
                with refused_unless_readable(path, "the shard is damaged"):  # not about `yield`: what is caught is ours
                    entry = self._entry(path, arrays, row, list(group))
                yield entry

    def _entry(self, path: Path, arrays: Any, row: int, group: list[dict[str, Any]]) -> Entry:
        first = group[0]
        if first["error"] is not None:
            return Entry(first["image"], [], [], None, first["error"])
        maps = arrays[str(row)]
        if not isinstance(maps, np.ndarray) or maps.ndim != 3 or len(maps) != len(group):
            raise InputError(f"{path}: row {row} ({first['image']}) holds {len(group)} maps by the index alone")
        if self._verify and [hashlib.sha256(one.tobytes()).hexdigest() for one in maps] != [
            one["digest"] for one in group
        ]:
            raise InputError(f"{path}: the maps of row {row} ({first['image']}) are not those that were written")
        return Entry(first["image"], [one["target"] for one in group], [one["score"] for one in group], maps, None)
