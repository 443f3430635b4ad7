"""Pools and windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import reference as ref
from cases import EPS32, EPS64, Failure, Layout, Outcome, Outcomes, check, refused, relative
from machine import Machine
from structs import Axis, Pool2d


@dataclass
class Pool:
    """A pooling of `n` images of `c` channels; `out` where it is not what the other numbers give."""

    n: int
    c: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    out: tuple[int, int] | None = None
    layout: str = "nchw"
    columns: int = 1
    huge_columns: bool = False

    def shape(self) -> tuple[int, int]:
        if self.out:
            return self.out
        spans = [self.size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1 for i in (0, 1)]
        return spans[0] // self.stride[0] + 1, spans[1] // self.stride[1] + 1

    def wide(self) -> bool:
        """Whether winners take four bytes."""
        return self.kernel[0] * self.kernel[1] > 255

    def code_type(self) -> Any:
        return np.int32 if self.wide() else np.uint8

    def geometry(self) -> tuple[Any, ...]:
        return self.shape(), self.kernel, self.stride, self.padding, self.dilation

    def struct(self, batch: int, columns: int) -> Pool2d:
        h, w = (
            Axis(self.size[i], self.shape()[i], self.kernel[i], self.stride[i], self.padding[i], self.dilation[i])
            for i in (0, 1)
        )
        last = self.layout == "nhwc"
        return Pool2d(batch, 1 if last else self.c, self.c if last else 1, h, w, columns)


def pool(m: Machine, case: Pool, seed: int) -> Outcomes:
    """Max pooling and its routing; without dilation also window sums, by every divisor, and their spreading."""
    g = np.random.default_rng(seed)
    for dtype, suffix, eps in ((np.float32, "f32", EPS32), (np.float64, "f64", EPS64)):
        lower = Layout((case.n, case.c, *case.size), case.layout)
        x = g.integers(0, 4, lower.shape).astype(dtype) if seed % 2 else g.uniform(-1, 1, lower.shape).astype(dtype)
        if seed % 3 == 0:
            x.reshape(-1)[:: max(1, x.size // 5)] = np.nan
        outcome, codes = maximum(m, case, x, suffix)
        yield "max_pool " + suffix, outcome
        yield "max_route " + suffix, route(m, case, codes, g, dtype, suffix, eps * 32)
        if case.dilation == (1, 1):
            limit = eps * (8 + case.kernel[0] * case.kernel[1])
            positive = g.uniform(0, 1, lower.shape).astype(dtype)
            for divisor in (0, 1, 2):
                yield "window_sum " + suffix, average(m, case, positive, divisor, suffix, limit)
            yield "window_spread " + suffix, spread(m, case, g, dtype, suffix, limit)


def maximum(m: Machine, case: Pool, x: np.ndarray, suffix: str) -> tuple[Outcome, np.ndarray]:
    """Max pooling, and the winners that the reference finds; the error is how many elements are wrong."""
    lower, upper = (Layout((case.n, case.c, *size), case.layout) for size in (case.size, case.shape()))
    y, codes = upper.empty(x.dtype), upper.empty(case.code_type())
    refused(m.call("max_pool_" + suffix, case.struct(case.n, 1), lower.memory(x), y, codes, int(case.wide())))
    expected, expected_code = ref.max_pool(x, *case.geometry(), none=-1 if case.wide() else 255)
    (result, clean), (code, clean_codes) = upper.read(y), upper.read(codes)
    check(clean and clean_codes, "max_pool")
    right = (result == expected) | (np.isnan(result) & np.isnan(expected))
    wrong = float((~right).sum() + (code != expected_code).sum())
    return Outcome(wrong, 0, result.tobytes() + code.tobytes()), expected_code


def route(
    m: Machine, case: Pool, codes: np.ndarray, g: np.random.Generator, dtype: Any, suffix: str, limit: float
) -> Outcome:
    """Routing to the winners, K columns for each image."""
    lower, upper = (Layout((case.n * case.columns, case.c, *size), case.layout) for size in (case.size, case.shape()))
    p, below = g.uniform(0, 1, upper.shape).astype(dtype), lower.empty(dtype)
    if case.huge_columns:  # all rows are columns of the first image
        codes = codes[:1]
    struct = case.struct(case.n * case.columns, 1 << 33 if case.huge_columns else case.columns)
    winners = Layout((codes.shape[0], case.c, *case.shape()), case.layout).memory(codes.astype(case.code_type()))
    refused(m.call("max_route_" + suffix, struct, upper.memory(p), winners, int(case.wide()), below))
    expected = ref.max_route(p.astype(np.float64), codes, case.size, *case.geometry())
    result, clean = lower.read(below)
    check(clean, "max_route")
    return Outcome(relative(result, expected, expected), limit, result.tobytes())


def average(m: Machine, case: Pool, x: np.ndarray, divisor: int, suffix: str, limit: float) -> Outcome:
    """Window sums, divided by nothing, by the pixels inside, or by the padded window."""
    lower, upper = (Layout((case.n, case.c, *size), case.layout) for size in (case.size, case.shape()))
    y = upper.empty(x.dtype)
    refused(m.call("window_sum_" + suffix, case.struct(case.n, 1), divisor, lower.memory(x), y))
    expected = ref.window_sum(x.astype(np.float64), divisor, *case.geometry())
    result, clean = upper.read(y)
    check(clean, "window_sum")
    if bool((np.isnan(result) != np.isnan(expected)).any()):
        raise Failure("window_sum: NaN elsewhere than in empty windows")
    some = ~np.isnan(expected)
    return Outcome(relative(result[some], expected[some], expected[some]), limit, result.tobytes())


def spread(m: Machine, case: Pool, g: np.random.Generator, dtype: Any, suffix: str, limit: float) -> Outcome:
    """The way back of window sums."""
    lower, upper = (Layout((case.n * case.columns, case.c, *size), case.layout) for size in (case.size, case.shape()))
    r, below = g.uniform(0, 1, upper.shape).astype(dtype), lower.empty(dtype)
    struct = case.struct(case.n * case.columns, case.columns)
    refused(m.call("window_spread_" + suffix, struct, upper.memory(r), below))
    expected = ref.window_spread(r.astype(np.float64), case.size, *case.geometry())
    result, clean = lower.read(below)
    check(clean, "window_spread")
    return Outcome(relative(result, expected, expected), limit, result.tobytes())
