"""Contractions up and down, two sums at once, and the naive kernels, on one convolution each."""

from __future__ import annotations

import numpy as np
import reference as ref
from cases import EPS32, EPS64, ROUND, Failure, Layout, Outcome, Outcomes, check, refused, relative
from contractions import Conv, contraction_of, limit_of, partial_for, ways_of
from machine import Machine
from structs import Strides, source_of


def up(
    m: Machine,
    case: Conv,
    seed: int,
    splits: tuple[int, ...] = (1, 3),
    offset: int = 0,
    extras: bool = True,
    to_offset: int | None = None,
    gate_kind: str | None = None,
) -> Outcomes:
    """z = W+ x with one sum, with bias, addend, gate, several or none."""
    to_offset = offset if to_offset is None else to_offset
    g, x, _, plus = case.values(seed)
    lower, upper = case.layouts(case.n)
    weights = case.weight_layout()
    source, weight = lower.memory(x, offset), weights.memory(plus, offset)
    d = contraction_of(m, case.struct(case.n, lower, upper), weights, False)
    for i, way in enumerate(ways_of(m, d, False, source, weight, None, splits)):
        addend = g.uniform(0, 1, upper.shape).astype(np.float32) if extras and (seed + i) % 2 else None
        gate = g.uniform(0, 1, upper.shape).astype(np.float32) if extras and (seed + i) // 2 % 2 else None
        bias = g.uniform(0, 1, case.o).astype(np.float32) if extras and (seed + i) % 3 == 0 else None
        gates = Layout(upper.shape, gate_kind or upper.kind, 4)
        to, partial = upper.empty(np.float32, to_offset), partial_for(m, d, way, 1)
        refused(
            m.call(
                "contraction",
                d,
                way.struct,
                source,
                weight,
                None if bias is None else source_of(bias, 4),
                None if addend is None else upper.memory(addend, to_offset),
                None if gate is None else gates.memory(gate, offset),
                gates.struct() if gate is not None else Strides(),
                1,
                to,
                partial,
            )
        )
        xr, wr = (ROUND[way.precision](v).astype(np.float64) for v in (x, plus))
        expected = ref.conv_up(xr, wr, case.out, *case.geometry())
        plain = ref.conv_up(x.astype(np.float64), plus.astype(np.float64), case.out, *case.geometry())
        if bias is not None:
            expected, plain = (v + bias.astype(np.float64)[:, None, None] for v in (expected, plain))
        if addend is not None:
            expected, plain = expected + addend, plain + addend
        if gate is not None:
            expected, plain = expected * gate.astype(np.float64), plain * gate.astype(np.float64)
        result, clean = upper.read(to)
        check(clean, way.name)
        yield (
            f"up {way.name}",
            Outcome(
                relative(result, expected, expected),
                limit_of(way, case.terms(), False),
                result.tobytes(),
                relative(result, plain, plain),
            ),
        )


def down(
    m: Machine,
    case: Conv,
    seed: int,
    splits: tuple[int, ...] = (1, 3),
    offset: int = 0,
    extras: bool = True,
    to_offset: int | None = None,
    gate_kind: str | None = None,
) -> Outcomes:
    """x * W+^T r with K columns of signed r for each image, with addend, gate, both or none."""
    g, x, _, plus = case.values(seed)
    k, batch = case.columns, case.n * case.columns
    to_offset = offset if to_offset is None else to_offset
    lower, upper = case.layouts(batch)
    gates = Layout((case.n, case.c, *case.size), gate_kind or case.layout)
    weights = case.weight_layout()
    r = g.uniform(-1, 1, upper.shape).astype(np.float32)
    source, weight = upper.memory(r, offset), weights.memory(plus, offset)
    d = contraction_of(m, case.struct(batch, lower, upper), weights, True)
    for i, way in enumerate(ways_of(m, d, True, source, weight, None, splits)):
        addend = g.uniform(-1, 1, lower.shape).astype(np.float32) if extras and (seed + i) % 2 else None
        gate = x if not extras or (seed + i) // 2 % 2 else None
        to, partial = lower.empty(np.float32, to_offset), partial_for(m, d, way, 1)
        refused(
            m.call(
                "contraction",
                d,
                way.struct,
                source,
                weight,
                None,
                None if addend is None else lower.memory(addend, to_offset),
                None if gate is None else gates.memory(gate, offset),
                gates.struct() if gate is not None else Strides(),
                k if gate is not None else 1,
                to,
                partial,
            )
        )
        wr = ROUND[way.precision](plus).astype(np.float64)
        rd = r.astype(np.float64)
        if way.precision and not way.split_source:
            rd = ROUND[way.precision](r).astype(np.float64)
        expected, size = (ref.conv_down(v, wr, case.size, *case.geometry()) for v in (rd, np.abs(rd)))
        plain = ref.conv_down(r.astype(np.float64), plus.astype(np.float64), case.size, *case.geometry())
        if addend is not None:
            expected, plain, size = expected + addend, plain + addend, size + np.abs(addend)
        if gate is not None:
            wide = np.repeat(gate.astype(np.float64), k, 0)
            expected, plain, size = expected * wide, plain * wide, size * wide
        result, clean = lower.read(to)
        check(clean, way.name)
        yield (
            f"down {way.name}",
            Outcome(
                relative(result, expected, size),
                limit_of(way, case.terms(), True),
                result.tobytes(),
                relative(result, plain, size),
            ),
        )


def excite(
    m: Machine, case: Conv, seed: int, splits: tuple[int, ...] = (1, 3), offset: int = 0, to_offset: int | None = None
) -> Outcomes:
    """y = W x + bias (through a ReLU), z = W+ x or the gate y / z."""
    g, x, w, plus = case.values(seed)
    lower, upper = case.layouts(case.n)
    weights = case.weight_layout()
    source, weight, positive = lower.memory(x, offset), weights.memory(w, offset), weights.memory(plus, offset)
    d = contraction_of(m, case.struct(case.n, lower, upper), weights, False)
    xd = x.astype(np.float64)
    y0, z = (ref.conv_up(xd, v.astype(np.float64), case.out, *case.geometry()) for v in (w, plus))
    size0 = ref.conv_up(xd, np.abs(w).astype(np.float64), case.out, *case.geometry())
    for i, way in enumerate(ways_of(m, d, False, source, weight, positive, splits)):
        relu, gate, with_bias = bool((seed + i) & 1), bool((seed + i) & 2), bool((seed + i) & 4)
        bias = g.uniform(-1, 1, case.o).astype(np.float32) if with_bias else None
        place = offset if to_offset is None else to_offset
        to, side, partial = upper.empty(np.float32, place), upper.empty(np.float32, place), partial_for(m, d, way, 2)
        refused(
            m.call(
                "excitation",
                d,
                way.struct,
                source,
                weight,
                positive,
                None if bias is None else source_of(bias, 4),
                relu,
                gate,
                to,
                side,
                partial,
            )
        )
        y, size = y0, size0
        if bias is not None:
            y, size = y + bias[:, None, None], size + np.abs(bias)[:, None, None]
        if relu:
            y = np.maximum(y, 0)
        result, clean = upper.read(to)
        beside, clean_side = upper.read(side)
        check(clean and clean_side, way.name)
        limit = limit_of(way, case.terms(), False)
        error = relative(result, y, size)
        if gate:  # y / z: the error of y, and of z relative to y
            scale = np.divide(size + np.abs(y), z, out=np.zeros_like(z), where=z != 0)
            error = max(error, relative(beside, ref.share(y, z), scale))
            if bool((beside[z == 0] != 0).any()):
                raise Failure("share of a zero normalizer is not 0")
        else:
            error = max(error, relative(beside, z, z))
        yield f"excite {way.name}", Outcome(error, limit, result.tobytes() + beside.tobytes())


def naive(m: Machine, case: Conv, seed: int) -> Outcomes:
    for dtype, suffix, eps in ((np.float32, "f32", EPS32), (np.float64, "f64", EPS64)):
        g, x, _, plus = case.values(seed)
        x, plus = x.astype(dtype), plus.astype(dtype)
        if dtype == np.float64:
            x, plus = x * (1 + 1e-9), plus * (1 + 3e-10)
        lower, upper = case.layouts(case.n)
        d, to = case.struct(case.n, lower, upper), upper.empty(dtype)
        limit = eps * (8 + case.terms())
        refused(m.call("conv_normalizer_" + suffix, d, lower.memory(x), source_of(plus), to))
        expected = ref.conv_up(x.astype(np.float64), plus.astype(np.float64), case.out, *case.geometry())
        result, clean = upper.read(to)
        check(clean, "conv_normalizer")
        yield "naive up " + suffix, Outcome(relative(result, expected, expected), limit, result.tobytes())
        r = g.uniform(-1, 1, upper.shape).astype(dtype)
        below = lower.empty(dtype)
        refused(m.call("conv_sweep_" + suffix, d, upper.memory(r), source_of(plus), below))
        expected, size = (
            ref.conv_down(v.astype(np.float64), plus.astype(np.float64), case.size, *case.geometry())
            for v in (r, np.abs(r))
        )
        result, clean = lower.read(below)
        check(clean, "conv_sweep")
        yield "naive down " + suffix, Outcome(relative(result, expected, size), limit, result.tobytes())
