"""The folder a run writes: manifest.json, shards/NAME.npz, index/NAME.parquet, overlays/NAME/.

A shard is there when its index is: the maps are written first, either file whole or not at all. So a run that was
killed has whole shards and no others, and what it left of the next one are files whose names begin with a dot.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import require
from ..files import atomic_path, open_regular, refused_unless_readable
from .identity import differences

FORMAT = "ebp_cuda batch 2"
_READABLE = ("ebp_cuda batch 1", FORMAT)
"""Format 1 lacks columns of the index, and had 8-bit photos resized in float."""


class Output:
    """A run's folder. `create` and `resume` make one; the manifest says with which settings it was begun."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest_path = self.folder / "manifest.json"

    def maps_path(self, shard: str) -> Path:
        """Where a shard's maps are: one array float32 [K, h, w] per image, under its row in the shard."""
        return self.folder / "shards" / f"{shard}.npz"

    def index_path(self, shard: str) -> Path:
        """Where a shard's table is."""
        return self.folder / "index" / f"{shard}.parquet"

    def overlay_folder(self, shard: str) -> Path:
        """Where a shard's pictures are."""
        return self.folder / "overlays" / shard

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Begins a run. Raises InputError where the folder holds anything or cannot be made."""
        require("pyarrow.parquet", "batch", "the index of a run")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder}: not empty; --resume goes on with the run that wrote it")
        try:
            for part in ("shards", "index"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: the folder cannot be made: {error.strerror}") from error
        with atomic_path(self.manifest_path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def resume(self, manifest: Mapping[str, Any]) -> None:
        """Goes on with a run, or begins it where there is none. Raises InputError where its settings differ."""
        if not self.manifest_path.exists():
            self.create(manifest)
            return
        begun = self.read_manifest()
        if begun["format"] != FORMAT:
            raise InputError(f"--resume {self.folder}: written as '{begun['format']}'; this version writes '{FORMAT}'")
        changes = differences(begun, json.loads(json.dumps(manifest)))
        if changes:
            raise InputError(f"--resume {self.folder}: begun with other settings: {'; '.join(changes)}")
        for left in (*self.folder.glob("shards/.*.npz"), *self.folder.glob("index/.*.parquet")):
            left.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any]:
        """manifest.json. Raises InputError where it is missing or another format."""
        if not self.manifest_path.exists():
            raise InputError(f"{self.folder}: no run of `ebp-cuda batch` (no manifest.json)")
        with refused_unless_readable(self.manifest_path, "cannot be read"), open_regular(self.manifest_path) as file:
            manifest = json.loads(file.read().decode())
        if not isinstance(manifest, dict) or manifest.get("format") not in _READABLE:
            raise InputError(f"{self.manifest_path}: not a manifest of the format '{FORMAT}'")
        return manifest

    def shards(self) -> list[str]:
        """Names of the whole shards, in order."""
        return sorted(path.stem for path in self.folder.glob("index/[!.]*.parquet"))

    def is_whole(self, shard: str) -> bool:
        """Whether a shard is there and its files are readable to their ends."""
        parquet = require("pyarrow.parquet", "batch", "the index of a run")
        try:
            with refused_unless_readable(shard, "damaged"):
                for path in (self.index_path(shard), self.maps_path(shard)):
                    open_regular(path).close()
                parquet.read_metadata(self.index_path(shard))
                with zipfile.ZipFile(self.maps_path(shard)):
                    return True
        except InputError:
            return False

    def contents(self, shard: str) -> dict[int, str | None]:
        """What was read of each image of a whole shard: row -> sha256 of its bytes, None where nothing was."""
        parquet = require("pyarrow.parquet", "batch", "the index of a run")
        path = self.index_path(shard)
        with refused_unless_readable(path, "damaged"):
            table = parquet.read_table(path, columns=["row", "content"])
        return dict(zip(table["row"].to_pylist(), table["content"].to_pylist(), strict=True))
