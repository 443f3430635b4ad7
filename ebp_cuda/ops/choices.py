"""The table that says which CUDA kernel computes which class of convolution, for measurements that try another.

The project's table is `csrc/cuda/choices.h`. A class is a matter of shapes, not of devices: with one table a
convolution has the same bits on every GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import UnsupportedError
from .library import LIBRARY
from .rounding import PRECISIONS, SPLIT

FACTORS = (*PRECISIONS, SPLIT)
WAYS = ("up", "down", "pair")
"""W x, W^T r, or W x and W+ x at once."""


class Row(NamedTuple):
    """A class of convolutions, and what computes it; of the rows that fit a convolution the first one holds."""

    way: str
    """One of `WAYS`."""
    factors: str
    """One of `FACTORS`: "fp32" by ordinary multiplications, the others by tensor cores."""
    rows: int
    """The class: at least so many pixels of the result,"""
    tiles: int
    """in at least so many tiles of 128 x 64,"""
    steps: int
    """with at least so many steps of 16 terms each."""
    large: bool
    """Whether tiles of 128 x 64 compute it, or of 64 x 64."""
    blocks: int
    """Wanted in all: where there are fewer tiles, the terms are split among more blocks."""

    def __str__(self) -> str:
        """As the row stands in choices.h."""
        large = str(self.large).lower()
        numbers = ", ".join(map(str, (self.rows, self.tiles, self.steps, large, self.blocks)))
        return f"{{Way::{self.way}, Precision::{self.factors}, {numbers}}},"


def choices() -> list[Row]:
    """The rows in force."""
    read = ctypes.CDLL(str(LIBRARY)).ebp_cuda_choices
    count = read(None, 0)
    numbers = (ctypes.c_int * (len(Row._fields) * count))()
    read(numbers, count)
    fields = [numbers[i : i + len(Row._fields)] for i in range(0, len(numbers), len(Row._fields))]
    return [
        Row(WAYS[way], FACTORS[factors], rows, tiles, steps, bool(large), blocks)
        for way, factors, rows, tiles, steps, large, blocks in fields
    ]


@contextmanager
def other_choices(rows: Sequence[Row]) -> Iterator[None]:
    """Within, all convolutions of the process follow other rows. For measurements: recorded graphs keep their kernels.

    Raises:
        UnsupportedError: the rows leave a class open, or ask a kernel for what it cannot do.
    """
    before = choices()
    _replace(rows)
    try:
        yield
    finally:
        _replace(before)


def _replace(rows: Sequence[Row]) -> None:
    flat = [
        n
        for row in rows
        for n in (WAYS.index(row.way), FACTORS.index(row.factors), *row[2:5], int(row.large), row.blocks)
    ]
    replace = ctypes.CDLL(str(LIBRARY)).ebp_cuda_replace_choices
    replace.restype = ctypes.c_char_p
    reason = replace((ctypes.c_int * len(flat))(*flat), len(rows))
    if reason is not None:
        raise UnsupportedError(f"choices of kernels: {reason.decode()}")
