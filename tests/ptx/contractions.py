"""Convolutions, and the schedules that the project admits for them."""

from __future__ import annotations

import ctypes as C
from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import EPS32, UNIT, Layout
from machine import Machine
from structs import FP32, TF32X3, Axis, Contraction, Conv2d, Memory, Schedule, pointer_to, target_of


@dataclass
class Conv:
    """A convolution of `n` images from `c` to `o` channels; `columns` of relevance for each on the way down."""

    n: int
    c: int
    o: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    layout: str = "nhwc"
    weights: str = "ohwi"
    columns: int = 1

    @property
    def out(self) -> tuple[int, int]:
        spans = [
            self.size[i] + self.pad[i] + self.pad[2 + i] - self.dilation[i] * (self.kernel[i] - 1) - 1 for i in (0, 1)
        ]
        return spans[0] // self.stride[0] + 1, spans[1] // self.stride[1] + 1

    def geometry(self) -> tuple[Any, ...]:
        return self.stride, self.pad[:2], self.dilation, self.groups

    def struct(self, batch: int, lower: Layout, upper: Layout) -> Conv2d:
        h, w = (
            Axis(self.size[i], self.out[i], self.kernel[i], self.stride[i], self.pad[i], self.dilation[i])
            for i in (0, 1)
        )
        return Conv2d(batch, self.c, self.o, self.groups, h, w, lower.struct(), upper.struct())

    def layouts(self, batch: int, kind: str | None = None) -> tuple[Layout, Layout]:
        kind = kind or self.layout
        return Layout((batch, self.c, *self.size), kind), Layout((batch, self.o, *self.out), kind)

    def weight_layout(self) -> Layout:
        shape = (self.o, self.c // self.groups, *self.kernel)
        return Layout(shape, "nchw" if self.weights == "oihw" else "nhwc")

    def terms(self) -> int:
        return self.kernel[0] * self.kernel[1] * max(self.c, self.o) // self.groups

    def values(self, seed: int) -> tuple[Any, ...]:
        """A random generator, x, W and W+."""
        g = np.random.default_rng(seed)
        x = g.uniform(0, 1, (self.n, self.c, *self.size)).astype(np.float32)
        w = g.uniform(-0.7, 1, (self.o, self.c // self.groups, *self.kernel)).astype(np.float32)
        return g, x, w, np.maximum(w, 0)


@dataclass
class Way:
    """One schedule of a contraction."""

    struct: Schedule
    name: str
    mma: bool
    precision: int
    split_source: bool


def ways_of(
    m: Machine,
    d: Contraction,
    down: bool,
    source: Any,
    weight: Any,
    plus: Any,
    splits: tuple[int, ...],
) -> list[Way]:
    """The schedules that the project chooses or admits, with one sum, or two where there is a `plus`."""
    size = int(m.sizes["Schedule"])
    room = 64
    many = (C.c_char * (size * room))()
    parts = (C.c_int * len(splits))(*splits)
    pointers = [pointer_to(t) for t in (source, weight, plus)]
    arch = m.settings["arch"]
    count = m.lib.schedules_of(C.byref(d), int(down), arch, *pointers, parts, len(splits), many, room)
    ways = []
    for i in range(count):
        one, facts, text = Schedule(), (C.c_int * 3)(), C.create_string_buffer(100)
        C.memmove(C.byref(one), C.addressof(many) + i * size, size)
        m.lib.schedule_facts(C.byref(one), facts)
        m.lib.schedule_name(C.byref(one), text, len(text))
        ways.append(Way(one, text.value.decode(), bool(facts[0]), facts[1], bool(facts[2])))
    return ways


def contraction_of(m: Machine, struct: Conv2d, weight: Layout, down: bool) -> Contraction:
    d = Contraction()
    m.lib.contraction_of(C.byref(struct), C.byref(weight.struct()), int(down), C.byref(d))
    return d


def partial_for(m: Machine, d: Contraction, way: Way, sums: int) -> Memory | None:
    """Memory for the sums of the parts of the terms, where there are parts."""
    total = m.lib.partial_of(C.byref(d), C.byref(way.struct), sums)
    return target_of(total, np.float32) if total else None


def limit_of(way: Way, terms: int, signed: bool) -> float:
    """How far a result may lie from the reference, over the sum of the absolute products.

    The rounding of the sums, and what a factor loses in two summands: a signed source, or in a forward both; there the
    product of the two rests is left out as well.
    """
    rounding = EPS32 * (8 + (terms if way.mma else 4 * terms**0.5 + min(terms, 16)))
    split = 3 if way.precision == TF32X3 else int(signed and way.precision != FP32)
    return (3 if way.precision == TF32X3 else 1) * rounding + (split * UNIT[way.precision] ** 2 if split else 0)
