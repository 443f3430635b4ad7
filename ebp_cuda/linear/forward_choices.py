"""Who computes the forward of a convolution on CUDA, by class of shape: a table, to be changed by measurements.

Our kernel gives the normalizer beside the forward from one reading of x; the library's products may be faster by more
than that is worth. `tools/gpu_library.py` times both. The rows are guesses so far. What the library computes has the
same bits for one device and one version of the library only. Its search for a faster algorithm (its "benchmark") goes
by times, and so may choose another one in the next process: it is timed there, to know its price, and never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .choice import FEW, FEW_CHANNELS

OURS = ""
HALF = "cuDNN computes this kernel in half the arithmetic"


class ForwardRow(NamedTuple):
    """A class of convolutions; of the rows that fit one the first holds."""

    taps: int
    """The class: kernels of at least so many taps,"""
    stride: int
    """with at least this stride along one axis,"""
    channels: int
    """of at least so many channels below."""
    library: str
    """Why the library computes it, or `OURS`."""


FORWARD: tuple[ForwardRow, ...] = (
    ForwardRow(1, 2, FEW, OURS),
    ForwardRow(2, 1, FEW, HALF),
    ForwardRow(1, 1, FEW, OURS),
    ForwardRow(1, 1, 0, FEW_CHANNELS),
)
"""Winograd products, which no strided kernel has, and which a kernel of one tap has no use for, need half the
arithmetic; a kernel of one tap reads more than it computes."""


def why_library(kernel: Sequence[int], stride: Sequence[int], channels: int, rows: Sequence[ForwardRow]) -> str:
    """Why the library computes the forward of a convolution; "" where our kernel does.

    Args:
        kernel: rows and columns.
        stride: of rows and columns.
        channels: below the convolution.
        rows: the last one takes everything.
    """
    taps = kernel[0] * kernel[1]
    for row in rows:
        if taps >= row.taps and max(stride) >= row.stride and channels >= row.channels:
            return row.library
    raise AssertionError("the last row takes everything")
