"""The folder a run writes: manifest.json, shards/NAME.npz, index/NAME.parquet, overlays/NAME/.

A shard is there when its index is: the maps are written first, either file whole or not at all. So a run that was
killed has whole shards and no others, and what it left of the next one are files whose names begin with a dot.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..extras import require
from ..files import atomic_path
from ..graph import Graph

FORMAT = "ebp_cuda batch 1"


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
        changes = _differences(self.read_manifest(), json.loads(json.dumps(manifest)))
        if changes:
            raise InputError(f"--resume {self.folder}: begun with other settings: {'; '.join(changes)}")
        for left in (*self.folder.glob("shards/.*.npz"), *self.folder.glob("index/.*.parquet")):
            left.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any]:
        """manifest.json. Raises InputError where it is missing or another format."""
        try:
            manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{self.folder}: no run of `ebp-cuda batch` (no manifest.json)") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{self.manifest_path}: cannot be read: {error}") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"{self.manifest_path}: not a manifest of the format '{FORMAT}'")
        return manifest

    def shards(self) -> list[str]:
        """Names of the whole shards, in order."""
        return sorted(path.stem for path in self.folder.glob("index/[!.]*.parquet"))

    def is_whole(self, shard: str) -> bool:
        """Whether a shard is there and its files are readable to their ends."""
        parquet = require("pyarrow.parquet", "batch", "the index of a run")
        try:
            parquet.read_metadata(self.index_path(shard))
            with zipfile.ZipFile(self.maps_path(shard)):
                return True
        except (OSError, ValueError, zipfile.BadZipFile):
            return False


def graph_digest(graph: Graph) -> str:
    """sha256 over a network's layers and weights, whatever file they came from."""
    digest = hashlib.sha256()
    for node in graph.nodes:
        digest.update(repr((node.name, node.op, node.inputs, node.outputs, sorted(node.attrs.items()))).encode())
        for name, param in sorted(node.params.items()):
            digest.update(f"{name} {param.dtype} {list(param.shape)}".encode())
            flat = param.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests, in words; who made them does not count."""
    old, new = _flat(before), _flat(now)
    keys = [key for key in dict.fromkeys([*old, *new]) if not key.startswith("made_with.")]
    return [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
