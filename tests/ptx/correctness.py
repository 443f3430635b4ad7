"""The cases: every launcher on ragged problems, under every schedule that the project admits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import contraction_cases
import far
import pointwise_cases
import pool_cases
import problems
from contractions import Conv
from runner import Runner

WAYS = (contraction_cases.up, contraction_cases.down, contraction_cases.excite)
ROWS = [
    (2, 3, 5, 4, 3, ("nchw", "nchw")),
    (1, 1, 17, 1, 1, ("nchw", "nchw")),
    (2, 3, 7, 5, 3, ("slice", "slice")),
    (1, 5, 64, 6, 5, ("slice", "nhwc")),
    (3, 1, 33, 3, 3, ("nhwc", "slice")),
    (2, 3, 8, 5, 3, ("slice", "slice")),
    (2, 4, 20, 3, 5, ("nhwc", "nhwc")),
]
"""images, columns, channels, height, width, layouts of the two tensors."""
POWERS = (0.75, 0.5, 1.0, 0.65)


@dataclass(frozen=True)
class Problems:
    """What to run."""

    convolutions: list[Conv]
    pools: list[tuple[int, pool_cases.Pool]]
    elements: tuple[int, ...] = (1, 255, 256, 257, 1000, 1028)
    lrn_sizes: tuple[int, ...] = (1, 2, 5, 8)
    long_lrn_sizes: tuple[int, ...] = (17, 20, 37)
    full_tiles: list[tuple[str, Conv, int, dict[str, object]]] = field(default_factory=list)
    far: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()
    """Bytes that pointers lie behind a multiple of 512."""


def everything(convolutions: int) -> Problems:
    """The whole list, with so many convolutions."""
    return Problems(
        problems.convolutions(convolutions),
        list(enumerate(problems.pools())),
        full_tiles=problems.full_tiles(),
        far=("images", "rows"),
        offsets=(4, 8, 16, 48),
    )


QUICK = Problems(
    [problems.convolutions(30)[i] for i in (0, 1, 3, 5, 6, 8, 9, 11, 13, 14, 17, 20)],
    [(i, problems.pools()[i]) for i in (0, 1, 3, 4, 5, 24, 25)],
    elements=(255, 257, 260),
    lrn_sizes=(5,),
    long_lrn_sizes=(),
    full_tiles=problems.full_tiles()[8:20],
)
"""One problem of each kind: every kernel runs, and every border is met."""


def run(r: Runner, wanted: Problems) -> None:
    """Runs them all."""
    pointwise(r, wanted)
    for i, p in wanted.pools:
        r.case(f"pool {i} {p}", partial(pool_cases.pool, r.m, p, i), repeat=p.kernel[0] < 16)
    for i, conv in enumerate(wanted.convolutions):
        r.case(f"naive {i} {conv}", partial(contraction_cases.naive, r.m, conv, i), repeat=i % 4 == 0)
        for way in WAYS:
            r.case(f"{way.__name__} {i} {conv}", partial(way, r.m, conv, i))
        if i % 10 == 9:
            print(f"  {i + 1} convolutions, {len(r.problems)} problems", flush=True)
    for i, (name, conv, seed, more) in enumerate(wanted.full_tiles):
        make: Callable[..., object] = getattr(contraction_cases, name)
        label = f"{name} full tile, seed {seed} {more} {conv}"
        r.case(label, partial(make, r.m, conv, seed, **more), repeat=i % 8 == 0)  # type: ignore[arg-type]
    for kind in wanted.far:
        for down in (False, True):
            label = f"far {kind} {'down' if down else 'up'}"
            r.case(label, partial(far.run, r.m, kind, down, 3), repeat=False)
    for offset in wanted.offsets:  # quads are refused, or fit
        for i in (3, 5, 8, 11, 17):
            conv = problems.convolutions(22)[i]
            for way in WAYS:
                label = f"{way.__name__} {i} offset {offset} {conv}"
                r.case(label, partial(way, r.m, conv, i, offset=offset), repeat=False)


def pointwise(r: Runner, wanted: Problems) -> None:
    """share, gate, add, rounding, winners and LRN."""
    for n in wanted.elements:
        r.case(f"elementwise {n}", partial(pointwise_cases.elementwise, r.m, n, n))
    for seed, row in enumerate(ROWS):
        r.case(f"rows {row}", partial(pointwise_cases.rows, r.m, *row, seed))
    huge = partial(pointwise_cases.rows, r.m, 1, 1, 5, 4, 3, ("nchw", "nchw"), 1, True)
    r.case("rows beyond 32 bits", huge)
    for beta in POWERS:
        for size in wanted.lrn_sizes:
            for kind in ("nchw", "nhwc"):
                small = partial(pointwise_cases.lrn, r.m, (2, 7, 3, 5), kind, size, 0.3, beta, 1.5, 3)
                r.case(f"lrn {kind} {size} {beta}", small)
        for channels in (4, 12):
            quads = partial(pointwise_cases.lrn, r.m, (2, channels, 3, 5), "nhwc", 5, 0.3, beta, 1.5, 3)
            r.case(f"lrn {channels} channels {beta}", quads)
        for size in wanted.long_lrn_sizes:
            long = partial(pointwise_cases.lrn, r.m, (1, 45, 2, 3), "nchw", size, 0.3, beta, 1.5, 4)
            r.case(f"lrn 45 channels {size} {beta}", long)
