"""Loads the compiled library. Importing this never compiles anything."""

from __future__ import annotations

import ctypes
import functools
import json
from pathlib import Path
from typing import Any

import torch

LIBRARY = Path(__file__).parents[1] / "_C.so"

if not LIBRARY.is_file():
    raise ImportError(
        f"{LIBRARY} is not there: ebp_cuda is not built. From the root of the repository, with torch installed:\n"
        "  pip install --no-build-isolation -e ."
    )
torch.ops.load_library(LIBRARY)


@functools.cache
def build_info() -> dict[str, Any]:
    """What the library was built with: "cuda" (bool: are the CUDA kernels in), "archs" (list of str, such as "90"),
    "nvcc" and "torch" (versions), "cpu_isa" (the instruction set that this machine runs: default, avx2, avx512 or
    amx)."""
    text = ctypes.CDLL(str(LIBRARY)).ebp_cuda_build_info
    text.restype = ctypes.c_char_p
    info: dict[str, Any] = json.loads(text())
    return {**info, "archs": info["archs"].split()}
