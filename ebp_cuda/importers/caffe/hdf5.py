"""Caffe's HDF5 snapshots: one group a layer under /data, one dataset a blob, named by its index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError, UnsupportedError
from ...files import atomic_path
from .blobs import WeightBlob, Weights

MAGIC = b"\x89HDF\r\n\x1a\n"

MAX_EXPANSION = 16
"""Bytes of float32 that a file may stand for, per byte of it: compressed or narrow numbers make several of one."""

_SMALL = 64_000_000
"""Bytes of float32 that any file may stand for."""


def read_hdf5(path: Path) -> Weights:
    """The parameters by layer. Raises ModelError, UnsupportedError without h5py."""
    h5py = _h5py(path)
    room = max(_SMALL, MAX_EXPANSION * path.stat().st_size)
    layers: dict[str, dict[int, np.ndarray]] = {}

    def visit(name: str, item: Any) -> None:
        nonlocal room
        if not isinstance(item, h5py.Dataset):
            layers.setdefault(name, {})
            return
        stored = item.id.get_storage_size()
        if item.external or item.is_virtual or item.nbytes > 64 * stored:
            raise ValueError(f"'{name}' says {item.nbytes} bytes, the file holds {stored} of it")
        # datasets may name the same bytes, so the sum over all of them is what counts
        room -= 4 * item.size
        if room < 0:
            raise ModelError(f"{path}: with '{name}', its datasets say more than {MAX_EXPANSION} times what it holds")
        # a layer name with slashes becomes nested groups, so the last part of the path is the blob's index
        layer, _, index = name.rpartition("/")
        layers.setdefault(layer, {})[int(index)] = np.asarray(item, dtype=np.float32)

    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("data", getlink=True), h5py.HardLink):
                raise KeyError("no group 'data'")
            file["data"].visititems(visit)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise ModelError(f"{path}: no HDF5 weights file of Caffe, or a truncated one: {error}") from None
    return {
        layer: [WeightBlob(blobs[i], blobs[i].shape, False) for i in sorted(blobs)] for layer, blobs in layers.items()
    }


def write_hdf5(path: str | Path, weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write parameters, by layer, as Caffe's HDF5 snapshots hold them. The file is whole or absent.



    Raises UnsupportedError without h5py, InputError where the file cannot be written.
    """
    h5py = _h5py(path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for layer, arrays in weights.items():
            group = file.create_group(f"data/{layer}")
            for index, array in enumerate(arrays):
                group.create_dataset(str(index), data=np.asarray(array, np.float32))


def _h5py(path: str | Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise UnsupportedError(f"{path}: HDF5 weights need the package h5py (pip install h5py)") from None
    return h5py
