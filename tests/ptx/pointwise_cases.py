"""share, gate, add, rounding, winners and local response normalization."""

from __future__ import annotations

import ctypes as C

import numpy as np
import reference as ref
from cases import EPS32, EPS64, ROUND, Layout, Outcome, Outcomes, check, refused, relative
from machine import Machine
from structs import BF16, TF32, Distances, Lrn, Rows, source_of, target_of


def lrn(
    m: Machine, shape: tuple[int, int, int, int], kind: str, size: int, alpha: float, beta: float, k: float, seed: int
) -> Outcomes:
    """Local response normalization of x [n, c, h, w] that lies as `kind` says."""
    g = np.random.default_rng(seed)
    for dtype, suffix, eps in ((np.float32, "f32", EPS32), (np.float64, "f64", EPS64)):
        layout = Layout(shape, kind)
        x = (g.normal(0, 5, shape)).astype(dtype)
        n, c, h, w = shape
        outer, inner = (n * h * w, 1) if kind == "nhwc" else (n, h * w)
        y = layout.empty(dtype)
        refused(m.call("lrn_" + suffix, Lrn(outer, c, inner, size, alpha / size, beta, k), layout.memory(x), y))
        expected = ref.lrn(x.astype(np.float64), size, alpha, beta, k)
        result, clean = layout.read(y)
        check(clean, "lrn")
        yield (
            "lrn " + suffix,
            Outcome(relative(result, expected, np.abs(expected)), eps * (16 + size), result.tobytes()),
        )


def rows(
    m: Machine, n: int, k: int, c: int, h: int, w: int, kinds: tuple[str, str], seed: int, huge: bool = False
) -> Outcomes:
    """share and gate: K rows of p or s per row of z or x, in runs with gaps."""
    g = np.random.default_rng(seed)
    last = kinds[0] != "nchw"
    for dtype, suffix, eps in ((np.float32, "f32", EPS32), (np.float64, "f64", EPS64)):
        gaps = (4, 8) if c % 4 == 0 else (3, 5)  # channels beside a slice: whole quads, or not
        column, shared = (Layout((rows_, c, h, w), *more) for rows_, *more in zip((n * k, n), kinds, gaps, strict=True))
        to = Layout(column.shape, "nhwc" if last else "nchw")
        row = c * h * w
        run = c if last else row
        apart = [Distances(t.strides[0], t.strides[3] if last else run) for t in (column, shared)]
        d = Rows(n * k * row, row, k, run, *apart)
        if huge:  # one row, one run: numbers beyond 32 bits say the same
            assert n * k == 1 and not last
            d = Rows(row, 1 << 33, 1 << 34, 1 << 35, Distances(1 << 36, 1), Distances(1 << 36, 1))
        p, z = g.uniform(-1, 1, column.shape).astype(dtype), g.uniform(0, 1, shared.shape).astype(dtype)
        z[g.uniform(0, 1, z.shape) < 0.2] = 0
        for kernel, formula in (("share", ref.share), ("gate", np.multiply)):
            y = to.empty(dtype)
            refused(m.call(f"{kernel}_{suffix}", d, column.memory(p), shared.memory(z), y))
            expected = formula(p.astype(np.float64), np.repeat(z.astype(np.float64), k, 0))
            result, clean = to.read(y)
            check(clean, kernel)
            yield f"{kernel} {suffix}", Outcome(relative(result, expected, np.abs(expected)), 2 * eps, result.tobytes())


def elementwise(m: Machine, n: int, seed: int) -> Outcomes:
    """add, the winner of up to eight inputs, and rounding."""
    g = np.random.default_rng(seed)
    for dtype, suffix in ((np.float32, "f32"), (np.float64, "f64")):
        a, b = (g.normal(0, 1, n).astype(dtype) for _ in range(2))
        y = target_of(n, dtype)
        refused(m.call("add_" + suffix, C.c_int64(n), source_of(a), source_of(b), y))
        yield "add " + suffix, exactly(y.array, a + b)
        for count in range(1, 9):
            xs = [g.integers(0, 3, n).astype(dtype) for _ in range(count)]
            winner = target_of(n, np.uint8)
            refused(m.call("max_winner_" + suffix, C.c_int64(n), [source_of(x) for x in xs], count, winner))
            yield "max_winner " + suffix, exactly(winner.array, ref.winner(xs))
    edges = [0, -0.0, 1 + 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 2 - 2.0**-12, 1e-39, 3e38, -1 - 2.0**-11]
    x = np.concatenate([g.normal(0, 1, n), edges]).astype(np.float32)
    for precision in (TF32, BF16):
        y = target_of(x.size, np.float32)
        refused(m.call("round_f32", C.c_int64(x.size), source_of(x), precision, y))
        yield "round", exactly(y.array, ROUND[precision](x))
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    y = target_of(3, np.float32)
    refused(m.call("round_f32", C.c_int64(3), source_of(special), TF32, y))
    yield "round", exactly(y.array, special)


def exactly(result: np.ndarray, expected: np.ndarray) -> Outcome:
    """A result that must be the expected one, NaN for NaN; the error is how many elements are not."""
    wrong = (result != expected) & ~(np.isnan(result) & np.isnan(expected))
    return Outcome(float(wrong.sum()), 0, result.tobytes())
