"""The lists of problems: mostly ragged, some random, some that fill tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from contractions import Conv
from pool_cases import Pool


def convolutions(count: int, seed: int = 5) -> list[Conv]:
    fixed = [
        Conv(1, 1, 1, (5, 5), (3, 3), pad=(1, 1, 1, 1), layout="nchw", weights="oihw"),
        Conv(2, 3, 7, (9, 8), (5, 5), (2, 2), (2, 2, 2, 2), layout="nchw", weights="oihw", columns=3),
        Conv(1, 17, 33, (6, 7), (3, 3), pad=(1, 1, 1, 1), columns=3),
        Conv(2, 64, 64, (5, 6), (3, 3), (2, 2), (1, 1, 1, 1), columns=3),
        Conv(1, 64, 64, (14, 14), (1, 1)),
        Conv(1, 20, 68, (9, 8), (3, 3), pad=(1, 1, 1, 1), columns=3),
        Conv(2, 8, 132, (7, 9), (1, 1), columns=3),
        Conv(1, 132, 36, (4, 5), (3, 3), pad=(1, 1, 1, 1), dilation=(1, 1)),
        Conv(1, 12, 16, (12, 11), (7, 7), (2, 2), (3, 3, 3, 3), columns=3),
        Conv(2, 16, 24, (10, 9), (5, 5), (1, 2), (2, 0, 1, 3), (2, 1), columns=3),
        Conv(1, 16, 16, (9, 9), (3, 3), (3, 2), (1, 1, 1, 1), (2, 3), columns=1),
        Conv(2, 24, 48, (6, 5), (3, 3), pad=(1, 1, 1, 1), groups=3, columns=3),
        Conv(1, 16, 16, (6, 5), (3, 3), pad=(1, 1, 1, 1), groups=4, columns=2),
        Conv(2, 8, 8, (7, 6), (3, 3), (2, 1), (1, 1, 1, 1), groups=8, columns=3),
        Conv(
            2, 12, 12, (7, 6), (3, 3), (2, 2), (1, 0, 1, 2), (2, 1), groups=12, columns=3, layout="nchw", weights="oihw"
        ),
        Conv(2, 33, 17, (1, 1), (1, 1), columns=3, layout="nchw", weights="oihw"),
        Conv(3, 128, 20, (1, 1), (1, 1), columns=2),
        Conv(2, 16, 12, (8, 8), (3, 3), pad=(1, 1, 1, 1), layout="slice", columns=3),
        Conv(1, 64, 8, (12, 13), (1, 1), (2, 2), columns=3, layout="slice"),
        Conv(1, 4, 4, (3, 3), (3, 3), pad=(2, 2, 2, 2), columns=3),
        Conv(1, 4, 8, (2, 2), (1, 1), (3, 3), columns=2),  # phases that meet no tap
        Conv(1, 16, 20, (9, 8), (3, 3), (2, 2), (1, 1, 1, 1), (2, 2), columns=2),  # phases that no position meets
        Conv(1, 96, 36, (12, 11), columns=2),  # columns that fill half a tile
        Conv(1, 36, 64, (17, 16), (3, 3), pad=(1, 1, 1, 1), columns=1),
        Conv(1, 4, 4, (12, 13), (7, 7), pad=(3, 3, 3, 3), groups=4, columns=2),
        Conv(1, 4, 4, (15, 14), (7, 9), (1, 1), (3, 4, 3, 4), (2, 2), groups=4, columns=1),
        Conv(1, 3, 3, (15, 14), (9, 9), (2, 2), (4, 4, 4, 4), groups=3, layout="nchw", weights="oihw"),
        Conv(1, 3, 2, (14, 15), (7, 9), pad=(3, 4, 3, 4), layout="nchw", weights="oihw"),
        Conv(1, 2, 3, (18, 20), (7, 9), (1, 1), (3, 4, 3, 4), (2, 2), layout="nchw", weights="oihw"),
        Conv(1, 2, 3, (18, 20), (9, 9), (1, 2), (3, 4, 3, 4), (1, 1), layout="nhwc", weights="oihw"),
        Conv(1, 2, 2, (4, 52), (2, 25), (1, 1), (0, 12, 0, 12), layout="nchw", weights="oihw"),
        Conv(1, 2, 2, (4, 90), (2, 23), (1, 2), (0, 12, 0, 12), (1, 2), layout="nchw", weights="oihw"),
    ]
    g = np.random.default_rng(seed)

    def pick(*options: Any) -> Any:
        return options[int(g.integers(len(options)))]

    cases = list(fixed)
    while len(cases) < count:
        quads = g.uniform() < 0.65
        groups = int(pick(1, 1, 1, 2, 3))
        c, o = (
            (pick(4, 8, 12, 20, 36, 64, 68), pick(4, 6, 8, 16, 28, 33, 64, 72))
            if quads
            else (pick(1, 3, 7, 17, 33, 64), pick(1, 3, 7, 17, 33, 64))
        )
        k = (pick(1, 3, 3, 5, 7), pick(1, 3, 3, 5, 7)) if g.uniform() < 0.4 else (pick(1, 3, 5, 7),) * 2
        case = Conv(
            int(pick(1, 2)),
            c * groups,
            o * groups,
            (int(g.integers(1, 14)), int(g.integers(1, 14))),
            k,
            (int(pick(1, 1, 2, 3)), int(pick(1, 1, 2, 3))),
            tuple(int(v) for v in g.integers(0, 4, 4)),
            (int(pick(1, 1, 2)), int(pick(1, 1, 2))),
            groups,
            pick("nhwc", "nhwc", "slice") if quads else pick("nchw", "nhwc", "slice"),
            "ohwi" if quads else pick("oihw", "ohwi"),
            int(pick(1, 3)),
        )
        spans = [
            case.size[i] + case.pad[i] + case.pad[2 + i] - case.dilation[i] * (case.kernel[i] - 1) - 1 for i in (0, 1)
        ]
        if min(spans) >= 0 and case.terms() <= 2500:
            cases.append(case)
    return cases[:count]


def full_tiles() -> list[tuple[str, Conv, int, dict[str, Any]]]:
    """Tiles without an empty row or column, with every ending: wide or not, addend or gate or both, in parts or not."""
    pointwise = Conv(1, 16, 64, (12, 12))
    odd = Conv(1, 16, 66, (12, 12))
    back = Conv(1, 64, 16, (12, 12))
    found = []
    for seed in range(8):
        found += [
            ("up", pointwise, seed, {}),
            ("up", odd, seed, {}),
            ("up", pointwise, seed, {"gate_kind": "nchw"}),
            ("down", back, seed, {}),
            ("down", back, seed, {"gate_kind": "nchw"}),
            ("down", back, seed, {"to_offset": 4}),
            ("up", pointwise, seed, {"to_offset": 8}),
            ("excite", pointwise, seed, {}),
            ("excite", odd, seed, {}),
            ("excite", pointwise, seed, {"to_offset": 4}),
        ]
    return found


def pools() -> list[Pool]:
    return [
        Pool(2, 3, (7, 8), (3, 3), (2, 2)),
        Pool(1, 5, (9, 6), (2, 3), (1, 2), (1, 1), layout="nhwc", columns=3),
        Pool(2, 4, (6, 6), (3, 3), (2, 2), (0, 0), out=(3, 3), columns=3),
        Pool(1, 7, (10, 11), (3, 2), (2, 3), (1, 0), (2, 3), layout="nhwc", columns=2),
        Pool(1, 2, (9, 9), (2, 2), (3, 3), (0, 0), out=(4, 4)),  # windows that lie outside
        Pool(1, 2, (18, 17), (17, 16), (1, 1), (3, 4), columns=2),  # more taps than a byte counts
        Pool(1, 3, (20, 18), (16, 16), (2, 2), (4, 4), layout="nhwc", columns=3),
        Pool(1, 33, (5, 5), (1, 1), (1, 1), layout="nhwc"),
        Pool(2, 2, (5, 4), (3, 3), (1, 1), (1, 1), columns=3, huge_columns=True),
        Pool(1, 3, (11, 12), (7, 9), (1, 1), (3, 4), columns=2),
        Pool(1, 3, (13, 14), (4, 6), (1, 1), (2, 2), (2, 2), layout="nhwc", columns=2),
        Pool(1, 2, (12, 27), (5, 8), (2, 1), (2, 3), (1, 3), columns=1),
        Pool(1, 2, (14, 30), (6, 7), (1, 1), (3, 4), (2, 4), columns=2),
        Pool(1, 2, (15, 15), (7, 7), (2, 1), (3, 3), (1, 1), layout="nhwc"),
        Pool(1, 2, (15, 15), (7, 7), (1, 1), (3, 3), (1, 2), layout="nhwc"),
        Pool(1, 2, (15, 15), (7, 7), (1, 1), (3, 3), (2, 1)),
        Pool(1, 3, (15, 16), (5, 9), (2, 2), (2, 4), layout="nhwc", columns=2),
        Pool(1, 2, (40, 38), (16, 16), (1, 2), (5, 3), (2, 1), columns=2),
        Pool(1, 2, (34, 60), (16, 17), (2, 1), (2, 3), (1, 3), layout="nhwc", columns=1),
        Pool(1, 1, (36, 37), (16, 17), (1, 1), (2, 3), (2, 2)),
        Pool(1, 1, (20, 21), (16, 17), (1, 1), (2, 3)),
        Pool(1, 2, (4, 61), (2, 25), (1, 1), (0, 12)),  # longer than any unrolled loop
        Pool(1, 2, (5, 60), (2, 41), (2, 2), (1, 9), layout="nhwc"),
        Pool(2, 2, (20, 19), (17, 16), (1, 1), (3, 4), columns=2, huge_columns=True),
        *four_channels_a_thread(),
    ]


def four_channels_a_thread() -> list[Pool]:
    """Channels in whole quads: as GoogLeNet has them, ragged, with a window outside, one row of columns too many."""
    return [
        Pool(2, 20, (13, 11), (3, 3), (2, 2), layout="nhwc", columns=3),
        Pool(1, 64, (7, 9), (3, 3), (1, 1), (1, 1), layout="nhwc"),
        Pool(2, 4, (8, 6), (2, 2), (2, 2), layout="nhwc", columns=2),
        Pool(2, 8, (9, 8), (3, 2), (2, 3), (1, 0), out=(6, 4), layout="nhwc", columns=2),
        Pool(1, 12, (5, 5), (5, 5), (1, 1), layout="nhwc", columns=2),
        Pool(2, 8, (9, 9), (3, 3), (2, 2), (1, 1), (2, 2), layout="nhwc"),  # dilated: one channel a thread
        Pool(2, 8, (5, 4), (3, 3), (1, 1), (1, 1), layout="nhwc", columns=3, huge_columns=True),
    ]
