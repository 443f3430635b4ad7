"""What kernels do to banks, sectors and the instruction count, on layers of a network's sizes; the printed table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import contraction_cases
import numpy as np
import pointwise_cases
import pool_cases
from contractions import Conv
from machine import Machine
from ptx_program import Program
from runner import FIRST, Record, Runner
from sass import readable

COUNTED = (
    "executions",
    "requests",
    "sectors",
    "ideal sectors",
    "shared requests",
    "wavefronts",
    "ideal wavefronts",
    "lanes",
)
"""Columns of the machine's statistics."""
WEIGHTS = {r"(div|rem)\..*64": 40, r"(div|rem)\..*32": 15, r"mul\.lo\..64": 4, r"(?!ld|st|cvta?|cp).*64": 2}
"""Instructions of sm_90 that one of PTX becomes, about, by the first pattern that fits; 1 for all others."""
TWICE = "1x1 48->64", "1x1 96->64"
"""Two layers of which the second takes twice the steps; neither is long enough to be split."""
PADDED = (1, 1, 1, 1)
LAYERS = {
    "3x3 64->64, 16x16": Conv(1, 64, 64, (16, 16), (3, 3), pad=PADDED),
    "1x1 96->64, 16x16": Conv(1, 96, 64, (16, 16)),
    "1x1 48->64, 16x16": Conv(1, 48, 64, (16, 16)),
    "3x3/2 32->64, 16x16": Conv(1, 32, 64, (16, 16), (3, 3), (2, 2), PADDED),
}


@dataclass(frozen=True)
class Figures:
    """What one kernel did in one workload."""

    workload: str
    kernel: str
    """Mangled."""
    counts: dict[str, np.ndarray]
    """COUNTED, summed by the operation: "ld", "st", "cp.async", "all"."""
    executed: float
    """Instructions that warps executed, about: PTX by WEIGHTS."""
    warps: int
    elements: float
    """Results that were stored."""

    @property
    def banks(self) -> float | None:
        """Wavefronts of shared memory over the fewest; 1 is free of conflicts."""
        return over(self.counts["all"][5], self.counts["all"][6])

    def sectors(self, op: str) -> float | None:
        """Sectors of 32 bytes that a request of global memory touches."""
        return over(self.counts[op][2], self.counts[op][1])

    def used(self, op: str) -> float | None:
        """Share of the touched sectors' bytes that were asked for."""
        return over(self.counts[op][3], self.counts[op][2])


def over(a: float, b: float) -> float | None:
    return float(a / b) if b else None


def workloads(m: Machine) -> Iterator[tuple[str, Iterable[Any]]]:
    """Calls to measure, by name."""
    for name, conv in LAYERS.items():
        yield f"up {name}", contraction_cases.up(m, conv, 1, (1,), extras=False)
        if not name.startswith("1x1"):
            yield f"down {name}", contraction_cases.down(m, conv, 1, (1,), extras=False)
        yield f"excite {name}", contraction_cases.excite(m, conv, 1, (1,))
    for channels in (48, 96):
        wide = Conv(1, 64, channels, (16, 16))
        yield f"down 1x1 {channels}->64, 16x16", contraction_cases.down(m, wide, 1, (1,), extras=True)
    yield "up in parts, 1x1", contraction_cases.up(m, Conv(1, 192, 64, (16, 16)), 1, (3,), extras=False)
    planes = Conv(1, 24, 32, (14, 14), (3, 3), pad=PADDED, layout="nchw", weights="oihw")
    yield "up nchw, 3x3 24->32", contraction_cases.up(m, planes, 1, (1,), extras=False)
    for kind in ("nchw", "nhwc"):
        deep = Conv(1, 64, 64, (14, 14), (3, 3), pad=PADDED, groups=64, layout=kind, weights="ohwi")
        both = chain(contraction_cases.up(m, deep, 1, (), extras=False), contraction_cases.excite(m, deep, 1, ()))
        yield f"depthwise 3x3 64 {kind}", both
        plain = Conv(1, 16, 16, (14, 14), (3, 3), pad=PADDED, layout=kind, weights="oihw")
        yield f"naive 3x3 16->16 {kind}", contraction_cases.naive(m, plain, 1)
        for size, stride, padding in ((3, 2, 0), (3, 1, 1), (2, 2, 0)):
            pool = pool_cases.Pool(1, 64, (15, 15), (size,) * 2, (stride,) * 2, (padding,) * 2, layout=kind)
            yield f"pool {size}x{size}/{stride} {kind}", pool_cases.pool(m, pool, 1)
        yield f"lrn 64 {kind}", pointwise_cases.lrn(m, (1, 64, 14, 14), kind, 5, 1e-4, 0.75, 1.0, 1)
        yield f"rows 64, K 5 {kind}", pointwise_cases.rows(m, 1, 5, 64, 14, 14, (kind, kind), 1)
    yield "elementwise 20000", pointwise_cases.elementwise(m, 20000, 1)


def measure(m: Machine) -> list[Figures]:
    """Runs every workload once and reads the machine's statistics."""
    m.set(**FIRST)
    rows = []
    for label, calls in workloads(m):
        for name in m.programs:
            m.stats(name, True)
        m.launched()
        for _ in calls:
            pass
        for name in sorted(set(m.launched())):
            rows.append(figures_of(label, m.programs[name], m.stats(name, True).astype(float)))
    m.faults()
    return rows


def figures_of(label: str, program: Program, statistics: np.ndarray) -> Figures:
    """The figures of one kernel from the statistics of its instructions."""
    ops = np.array(program.ops)
    counts = {op: statistics[ops == op].sum(0) for op in ("ld", "st", "cp.async")}
    executed = float((statistics[:, 0] * [weight(op) for op in program.ops]).sum())
    sizes, vectors = program.table[:, 24], program.table[:, 25]
    results = (ops == "st") & (sizes == sizes[ops == "st"].max(initial=0))  # not the codes beside them
    elements = float((statistics[results, 7] * vectors[results]).sum())
    return Figures(label, program.name, {**counts, "all": statistics.sum(0)}, executed, int(statistics[0, 0]), elements)


def weight(op: str) -> int:
    return next((number for pattern, number in WEIGHTS.items() if re.match(pattern, op)), 1)


def coverage(m: Machine) -> dict[str, float]:
    """The share of every kernel's instructions that ran since the last call."""
    return {name: float((m.stats(name, True)[:, 0] > 0).mean()) for name in m.programs}


def by_kernel(m: Machine, rows: list[Figures]) -> dict[str, dict[str, float]]:
    """By readable name, over the channels_last workloads: the worst bank-conflict degree and sectors per request.

    Also the instructions executed: for an element of the result, or by a warp outside of a tiled kernel's main loop.
    """
    names = readable(m.programs)
    worst: dict[str, dict[str, float]] = {}
    for row in rows:
        if "nchw" in row.workload:
            continue
        figures = {"banks": row.banks, **{f"{op} sectors": row.sectors(op) for op in ("ld", "st", "cp.async")}}
        if row.banks is None:
            window = re.match(r"pool (\S+)", row.workload)
            figures[f"executed for an element{f', {window[1]}' if window else ''}"] = over(
                32 * row.executed, row.elements
            )
        kept = worst.setdefault(names[row.kernel], {})
        for key, value in figures.items():
            if value is not None:
                kept[key] = round(max(kept.get(key, 0.0), value), 3)
    for name, outside in outside_of_loops(rows).items():
        worst[names[name]]["executed outside of the loop"] = round(outside, 1)
    return worst


def outside_of_loops(rows: list[Figures]) -> dict[str, float]:
    """Instructions of a warp before and behind the main loop, by kernel: from layers of once and twice the steps."""
    by_place = {(row.workload, row.kernel): row for row in rows}
    outside = {}
    for (workload, kernel), once in by_place.items():
        twice = by_place.get((workload.replace(*TWICE), kernel))
        if TWICE[0] in workload and twice is not None and once.banks is not None:
            outside[kernel] = 2 * once.executed / once.warps - twice.executed / twice.warps
    return outside


def cell(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def table(r: Runner, covered: dict[str, float], rows: list[Figures]) -> str:
    """What the cases showed of every kernel, and the figures of every workload."""
    short = readable(r.m.programs)
    lines = [f"{'kernel':68} {'cases':>6} {'error':>8} {'/limit':>6} {'faults':>6} {'ran':>5}"]
    for name in sorted(short, key=lambda name: short[name]):
        record = r.records.get(name, Record())
        start = f"{short[name]:68} {record.cases:6} {record.error:8.1e} {record.ratio:6.2f}"
        lines.append(f"{start} {sum(record.faults.values()):6} {covered[name]:5.0%}")
    if "?" in r.records:
        lines.append(f"not attributed: {dict(r.records['?'].faults)}")
    if rows:
        head = f"{'workload':24} {'kernel':68} {'banks':>6} " + " ".join(f"{op:>13}" for op in ("ld", "st", "cp.async"))
        lines += ["", "banks: wavefronts over ideal; else sectors per request, share used", head]
    for row in rows:
        moves = [f"{cell(row.sectors(op), '.1f')}, {cell(row.used(op))}" for op in ("ld", "st", "cp.async")]
        cells = " ".join(f"{move:>13}" for move in moves)
        lines.append(f"{row.workload:24} {short[row.kernel]:68} {cell(row.banks):>6} {cells}")
    return "\n".join(lines)
