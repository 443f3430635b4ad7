"""A stand-in for CuPy where there is no GPU: arrays of its own kind that go in and out by DLPack only.

`installed()` puts it into sys.modules as "cupy". What it records of the hand-overs, tests assert on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch


class ndarray:
    """Memory that only DLPack shows; its `__module__` is cupy, as that of a CuPy array is."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.memory = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.memory.shape)

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        cupy.handed_out.append(self.memory.data_ptr())
        return self.memory.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.__dlpack_device__()

    def __array__(self, *_: Any) -> Any:
        raise TypeError("implicit conversion to a host array, which CuPy refuses as well")


ndarray.__module__ = "cupy"


class _CuPy(ModuleType):
    ndarray = ndarray

    def __init__(self) -> None:
        super().__init__("cupy")
        self.handed_out: list[int] = []
        self.taken_in: list[int] = []

    def from_dlpack(self, source: Any) -> ndarray:
        self.taken_in.append(source.data_ptr())
        return ndarray(torch.from_dlpack(source))

    def asarray(self, tensor: torch.Tensor) -> ndarray:
        return ndarray(tensor)


cupy = _CuPy()


@contextmanager
def installed() -> Iterator[_CuPy]:
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
