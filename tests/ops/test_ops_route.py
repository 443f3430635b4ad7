"""max_pool2d_route where channels are neighbors, to the last bit: vectors of channels, pairs of columns, cut rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from oracle.ops import DEVICES, DTYPES, place, slow_route
from support import paths

from ebp_cuda import ops

POOLS = {  # size, output size, kernel, stride, padding, dilation
    "inception": ((6, 5), (6, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    "ceil": ((7, 6), (3, 3), (3, 3), (2, 2), (0, 0), (1, 1)),
    "one pixel": ((1, 1), (1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one output": ((4, 5), (1, 1), (4, 5), (1, 1), (0, 0), (1, 1)),
    "unseen pixels": ((7, 8), (3, 2), (1, 2), (3, 4), (0, 1), (1, 1)),
    "beyond the image": ((4, 4), (4, 3), (2, 3), (2, 2), (1, 0), (1, 1)),
    "dilated": ((9, 8), (5, 6), (3, 2), (1, 2), (0, 2), (2, 3)),
    "common divisor": ((11, 10), (4, 3), (3, 2), (2, 4), (2, 6), (4, 6)),
    "stride beyond dilation": ((12, 9), (4, 3), (2, 3), (3, 3), (1, 0), (2, 1)),
    "none dilated": ((5, 5), (1, 2), (2, 2), (5, 2), (0, 1), (5, 3)),
    "int32 codes": ((20, 19), (6, 4), (16, 17), (1, 1), (1, 0), (1, 1)),
}
CHANNELS = [2, 7, 16, 37, 64, 201]
COLUMNS = [1, 2, 3, 5]


def codes_of(kernel: tuple[int, int], shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Every tap, the nobody of an empty window, no tap at all, and numbers that are a tap's in their lowest byte."""
    taps = kernel[0] * kernel[1]
    wide = taps > 255
    strangers = [-1, taps, 256 + taps // 2, 512 + 3] if wide else [255, taps, 128 + taps // 2]
    choices = torch.tensor([*range(taps), *strangers, *([-1 if wide else 255] * (taps // 4))])
    codes = choices[torch.randint(len(choices), shape, generator=generator)]
    return codes.to(torch.int32 if wide else torch.uint8)


def routes(dtype: torch.dtype, device: str, pools: dict = POOLS) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """What was routed, and what a plain loop routes. Sums of these numbers are rounded: their order shows."""
    generator = torch.Generator().manual_seed(0)
    for position, (name, (size, out, kernel, stride, padding, dilation)) in enumerate(pools.items()):
        for step, channels in enumerate(CHANNELS):
            columns = COLUMNS[(position + step) % len(COLUMNS)]
            codes = codes_of(kernel, (2, channels, *out), generator)
            p = torch.randn(2 * columns, channels, *out, generator=generator, dtype=dtype)
            nobody = codes.to(torch.int64).repeat_interleave(columns, 0) == (-1 if codes.dtype == torch.int32 else 255)
            p[nobody] = float("nan")
            window = kernel, stride, padding, dilation
            got = ops.max_pool2d_route(
                place(p, dtype, torch.channels_last, device),
                place(codes, codes.dtype, torch.channels_last, device),
                size,
                *window,
            )
            yield f"{name}, {channels} channels, {columns} columns", got.cpu(), slow_route(p, codes, size, *window)


def different(dtype: torch.dtype, device: str = "cpu") -> list[str]:
    return [what for what, got, wanted in routes(dtype, device) if not torch.equal(got, wanted)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
def test_sums_are_those_of_a_plain_loop(dtype, device) -> None:
    assert different(dtype, device) == []


@pytest.mark.parametrize("isa", ["default", "avx2"])
def test_sums_are_those_of_a_plain_loop_on_lesser_processors(isa) -> None:
    code = "import torch, test_ops_route as t; from ebp_cuda import ops; print(ops.build_info()['cpu_isa'])"
    code += "; print(t.different(torch.float32) + t.different(torch.float64))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "EBP_CPU_ISA": isa, "PYTHONPATH": os.pathsep.join([str(paths.TESTS), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used, found = done.stdout.splitlines()
    assert used in (isa, "default") and found == "[]"


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_rows_may_be_cut_anywhere(threads) -> None:
    """Pairs of columns go together only where both lie in one part whole."""
    pool = (9, 8), (3, 3), (2, 2), (1, 1), (1, 1)
    generator = torch.Generator().manual_seed(1)
    codes = codes_of((3, 3), (2, 300, 5, 4), generator).contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    try:
        for columns in (1, 2, 5):
            p = torch.randn(2 * columns, 300, 5, 4, generator=generator).contiguous(memory_format=torch.channels_last)
            torch.set_num_threads(threads)
            got = ops.max_pool2d_route(p, codes, *pool)
            torch.set_num_threads(1)
            assert torch.equal(got, ops.max_pool2d_route(p, codes, *pool))
            assert torch.equal(got, slow_route(p, codes, *pool))
    finally:
        torch.set_num_threads(before)


def test_every_column_has_its_own_relevance() -> None:
    p = torch.arange(1.0, 6.0).view(5, 1, 1, 1).expand(5, 70, 2, 2).contiguous(memory_format=torch.channels_last)
    codes = torch.full((1, 70, 2, 2), 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(ops.max_pool2d_route(p, codes, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)), p)
