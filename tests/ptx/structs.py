"""Mirrors of the project's structs for ctypes, and arrays that stand for device memory."""

from __future__ import annotations

import ctypes as C
from typing import Any

import numpy as np

FP32, TF32, BF16, TF32X3 = range(4)
"""Precision of launchers.h."""


class Axis(C.Structure):
    _fields_ = [(n, C.c_int) for n in ("inside", "out", "kernel", "stride", "padding", "dilation")]


class Distances(C.Structure):
    _fields_ = [("row", C.c_int64), ("run", C.c_int64)]


class Rows(C.Structure):
    _fields_ = [
        *((n, C.c_int64) for n in ("total", "row", "columns", "run")),
        ("column", Distances),
        ("shared", Distances),
    ]


class Strides(C.Structure):
    _fields_ = [(n, C.c_int64) for n in "nchw"]


class Pool2d(C.Structure):
    _fields_ = [
        *((n, C.c_int64) for n in ("batch", "planes", "inner")),
        ("h", Axis),
        ("w", Axis),
        ("columns", C.c_int64),
    ]


class Lrn(C.Structure):
    _fields_ = [
        *((n, C.c_int64) for n in ("outer", "channels", "inner")),
        ("size", C.c_int),
        *((n, C.c_double) for n in ("alpha_over_size", "beta", "k")),
    ]


class Conv2d(C.Structure):
    _fields_ = [
        *((n, C.c_int) for n in ("batch", "in_channels", "out_channels", "groups")),
        ("h", Axis),
        ("w", Axis),
        ("lower", Strides),
        ("upper", Strides),
    ]


class Contraction(C.Structure):
    """Opaque, with room."""

    _fields_ = [("raw", C.c_int64 * 64)]


class Schedule(C.Structure):
    """Opaque, with room; Machine says what it is."""

    _fields_ = [("raw", C.c_int64 * 16)]


MIRRORS = (Axis, Rows, Strides, Pool2d, Lrn, Conv2d)
OPAQUE = (Contraction, Schedule)


class Memory:
    """Memory of exactly the array's size, `offset` bytes behind an address that is a multiple of 512."""

    def __init__(self, size: int, dtype: Any, writable: bool, offset: int = 0) -> None:
        item = np.dtype(dtype).itemsize
        raw = np.full(size * item + 1024, 0xFF, np.uint8)
        start = -raw.ctypes.data % 512 + offset
        self.array = raw[start : start + size * item].view(dtype)
        self.writable, self.address, self.unwritten = writable, self.array.ctypes.data, 0


def source_of(array: np.ndarray, offset: int = 0) -> Memory:
    """A copy of the array that a kernel may read."""
    memory = Memory(array.size, array.dtype, False, offset)
    memory.array[:] = array.reshape(-1)
    return memory


def target_of(size: int, dtype: Any, offset: int = 0) -> Memory:
    """Memory that a kernel may write, all NaN."""
    return Memory(size, dtype, True, offset)


def pointer_to(memory: Any) -> C.c_void_p:
    """The address of a Memory, or null for None."""
    return C.c_void_p(None if memory is None else memory.address)
