"""Tensors whose parts lie more than 2^31 elements apart: sparse memory, and only the parts are device memory."""

from __future__ import annotations

import ctypes as C
import mmap
from typing import Any

import numpy as np
import reference as ref
from cases import ROUND, Outcome, Outcomes, refused, relative
from contractions import Conv, limit_of, partial_for, ways_of
from machine import Machine
from structs import Axis, Contraction, Conv2d, Strides, pointer_to

NO_RESERVE = 0x4000
"""MAP_NORESERVE of Linux, which Python's mmap does not name."""


class Far:
    """A tensor of given element strides in memory of its own, of which the images' rows exist and nothing between."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], values: np.ndarray | None = None) -> None:
        self.shape, self.strides, self.writable = shape, strides, values is None
        span = 1 + sum((a - 1) * s for a, s in zip(shape, strides, strict=True))
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        self.map = mmap.mmap(-1, span * 4 + 4096, flags=flags)
        flat = np.frombuffer(self.map, np.float32, span)
        self.view = np.lib.stride_tricks.as_strided(flat, shape, [s * 4 for s in strides])
        self.address = flat.ctypes.data
        self.view[...] = np.nan if values is None else values

    def register(self, m: Machine) -> None:
        """Windows: along the axes with large strides one each, the others together."""
        large = [i for i, s in enumerate(self.strides) if s >= 1 << 20]
        rest = 1 + sum((self.shape[i] - 1) * s for i, s in enumerate(self.strides) if i not in large)
        for index in np.ndindex(*[self.shape[i] for i in large]):
            at = sum(k * self.strides[i] for k, i in zip(index, large, strict=True))
            m.lib.px_buffer(C.c_void_p(self.address + 4 * at), C.c_uint64(4 * rest), int(self.writable), b"far")


def strides_of(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """channels_last with images that lie 2^31 elements apart, or in one image rows that lie 2^28 apart."""
    n, c, h, w = shape
    if kind == "images":
        return (1 << 31) + 64, 1, w * c, c
    return 0 if n == 1 else h * (1 << 28), 1, 1 << 28, c


def run(m: Machine, kind: str, down: bool, seed: int) -> Outcomes:
    """Contractions (every schedule), with "images" or "rows" far apart; results like the near ones'."""
    images = kind == "images"
    case = Conv(2 if images else 1, 8, 8, (5, 6), (3, 3), (1, 1) if images else (2, 1), (1, 1, 1, 1))
    g, x, _, plus = case.values(seed)
    shapes = (case.n, case.c, *case.size), (case.n, case.o, *case.out)
    strides = tuple(strides_of(kind, shape) for shape in shapes)
    r = g.uniform(-1, 1, shapes[1]).astype(np.float32)
    source = Far(shapes[down], strides[down], r if down else x)
    weight = Far(plus.shape, (1 << 27, 1, 3 * 8, 8), plus)  # a row of weights per output channel, far apart
    axes = (Axis(case.size[i], case.out[i], 3, case.stride[i], 1, 1) for i in (0, 1))
    conv = Conv2d(case.n, case.c, case.o, 1, *axes, *(Strides(*s) for s in strides))
    d = Contraction()
    m.lib.contraction_of(C.byref(conv), C.byref(Strides(*weight.strides)), int(down), C.byref(d))
    for way in ways_of(m, d, down, source, weight, None, (1, 2)):
        to, partial = Far(shapes[not down], strides[not down]), partial_for(m, d, way, 1)
        m.lib.px_buffers_clear()
        for tensor in (source, weight, to):
            tensor.register(m)
        if partial is not None:
            m.lib.px_buffer(pointer_to(partial), C.c_uint64(partial.array.nbytes), 1, b"partial")
        refused(launched(m, d, way.struct, source, weight, to, partial))
        rounded = ROUND[way.precision](plus).astype(np.float64)
        if down:
            both = (r.astype(np.float64), np.abs(r).astype(np.float64))
            expected, size = (ref.conv_down(v, rounded, case.size, *case.geometry()) for v in both)
        else:
            rounded_x = ROUND[way.precision](x).astype(np.float64)
            expected = size = ref.conv_up(rounded_x, rounded, case.out, *case.geometry())
        result = to.view.copy()
        error = relative(result, expected, size)
        yield way.name, Outcome(error, limit_of(way, case.terms(), down), result.tobytes())


def launched(m: Machine, d: Contraction, schedule: C.Structure, *tensors: Any) -> str | None:
    """What the launcher says; the buffers stand already."""
    source, weight, to, partial = map(pointer_to, tensors)
    function = m.lib.contraction
    function.restype = C.c_char_p
    none = Strides()
    error = function(
        C.byref(d), C.byref(schedule), source, weight, None, None, None, C.byref(none), C.c_int(1), to, partial
    )  # fmt: skip
    return None if error is None else error.decode()
