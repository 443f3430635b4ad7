"""What every case needs: layouts of tensors, rounding, how far a result may lie from the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import reference as ref
from structs import BF16, FP32, TF32, TF32X3, Memory, Strides, source_of, target_of

EPS32, EPS64 = 2.0**-24, 2.0**-53
UNIT = {TF32: 2.0**-11, BF16: 2.0**-8, TF32X3: 2.0**-11}
ROUND = {TF32: ref.tf32, BF16: ref.bf16, FP32: lambda x: x, TF32X3: lambda x: x}


@dataclass
class Layout:
    """How a tensor of four axes lies: `nchw`, `nhwc`, or `slice`: channels of a wider nhwc tensor."""

    shape: tuple[int, int, int, int]
    kind: str
    extra: int = 8

    @property
    def strides(self) -> tuple[int, int, int, int]:
        _, c, h, w = self.shape
        if self.kind == "nchw":
            return c * h * w, h * w, w, 1
        t = c + (self.extra if self.kind == "slice" else 0)
        return h * w * t, 1, w * t, t

    @property
    def span(self) -> int:
        return 1 + sum((a - 1) * s for a, s in zip(self.shape, self.strides, strict=True))

    def view(self, flat: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.as_strided(flat, self.shape, [s * flat.itemsize for s in self.strides])

    def memory(self, values: np.ndarray, offset: int = 0) -> Memory:
        flat = np.full(self.span, np.nan, values.dtype)
        self.view(flat)[...] = values
        return source_of(flat, offset)

    def empty(self, dtype: type = np.float32, offset: int = 0) -> Memory:
        return target_of(self.span, dtype, offset)

    def struct(self) -> Strides:
        return Strides(*self.strides)

    def read(self, memory: Memory) -> tuple[np.ndarray, bool]:
        """The values, and whether the gaps are as untouched as they should be."""
        used = np.zeros(self.span, bool)
        self.view(used)[...] = True
        gaps = memory.array[~used]
        clean = bool((gaps.view(np.uint8) == 0xFF).all()) and memory.unwritten == gaps.nbytes
        return self.view(memory.array).copy(), clean


class Failure(Exception):
    """A result that cannot be compared, or a launcher that refused."""


@dataclass
class Outcome:
    error: float  # largest, relative to the sum of absolute products (or to the value)
    limit: float
    bits: bytes
    loose: float = 0.0  # against the reference that rounds nothing


Outcomes = Iterator[tuple[str, Outcome]]


def relative(result: np.ndarray, expected: np.ndarray, size: np.ndarray) -> float:
    if not np.isfinite(result).all():
        return float("inf")
    tiny = np.finfo(np.float32).tiny
    return float((np.abs(result - expected) / np.maximum(size, tiny)).max()) if result.size else 0.0


def check(clean: bool, what: str) -> None:
    if not clean:
        raise Failure(what + ": elements unwritten, or gaps written")


def refused(error: str | None) -> None:
    if error is not None:
        raise Failure("launcher says: " + error)
