"""Whether the NVIDIA driver is new enough for the CUDA runtime that the compiled library holds."""

from __future__ import annotations

import ctypes

from .library import build_info

_FIRST_DRIVERS = {12: "525", 13: "580"}
"""CUDA major version -> the first driver on Linux that runs it (CUDA release notes, "minor version compatibility")."""


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA version that the installed driver runs, such as (12, 8); None where there is no driver."""
    try:
        query = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion
    except (OSError, AttributeError):
        return None
    version = ctypes.c_int()
    if query(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def driver_refuses() -> str | None:
    """Why the driver cannot run the kernels, with both versions; None where it can, or where there are none of either.

    Minor versions do not matter: a driver runs every runtime of its own major version, and all older ones.
    """
    runtime, driver = build_info()["nvcc"], driver_version()
    if not runtime or driver is None or driver[0] >= int(runtime.split(".")[0]):
        return None
    first = _FIRST_DRIVERS.get(int(runtime.split(".")[0]))
    return (
        f"this build of ebp_cuda holds the CUDA runtime {runtime}, and the installed NVIDIA driver runs no more than "
        f"CUDA {driver[0]}.{driver[1]}: update the driver{f' ({first} or newer)' if first else ''}, or build with a "
        f"CUDA {driver[0]}.x toolkit"
    )
