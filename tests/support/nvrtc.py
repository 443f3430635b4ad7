"""NVIDIA's run-time compiler without a GPU: it needs none to compile, and is what CuPy compiles with."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path


def library() -> Path | None:
    """libnvrtc of a toolkit or of the PyPI package nvidia-cuda-nvrtc, if there is one."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    places = [found for folder in folders for found in folder.glob("*/lib/libnvrtc.so.*")]
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    places += home.glob("lib64/libnvrtc.so.*")
    return next((place for place in sorted(places) if "builtins" not in place.name), None)


def compile_source(source: str, *options: str) -> tuple[bool, str]:
    """Whether `source` compiles, and the compiler's log, or the PTX where it does."""
    place = library()
    assert place is not None
    for builtins in place.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(place))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"rule.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    done = nvrtc.nvrtcCompileProgram(program, len(options), given) == 0
    what = "PTX" if done else "ProgramLog"
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, text) == 0
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return done, text.value.decode()
