"""The heads of .npy files, which say shape and type before any memory is taken."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError, ShapeError


def check_head(path: str | Path, file: IO[bytes], axes: int) -> None:
    """Refuses by the head alone what is no array that a network could take, before memory is taken for it."""
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADS:
        raise InputError(f"{path}: a .npy file of version {version}; 1.0, 2.0 or 3.0 was wanted")
    shape, _, dtype = _NPY_HEADS[version](file)
    if dtype.kind not in "fiub":
        raise InputError(f"{path}: a .npy array of real numbers was wanted, got {dtype}")
    if len(shape) not in (axes + 1, axes + 2) or 0 in shape:
        dims = f"C, {_SIZES[axes]}"
        raise ShapeError(f"{path}: an array [{dims}] or [N, {dims}] was wanted, got {str(list(shape))[:200]}")
    head = file.tell()
    held = file.seek(0, io.SEEK_END) - head
    if math.prod(shape) * dtype.itemsize > held:
        raise InputError(f"{path}: its head says {str(list(shape))[:200]} of {dtype}, and it holds {held} bytes")
    file.seek(0)


PLACES = {1: "x", 2: "y, x", 3: "t, y, x"}
_SIZES = {1: "L", 2: "H, W", 3: "T, H, W"}
"""By the axes behind the channels: how messages write a place and a size."""

_NPY_HEADS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # the same but for the letters of field names, which are refused
}
