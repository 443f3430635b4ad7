"""Every op against a slow, obvious restatement in float64, in both memory formats, on every device there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracle.ops import (
    DEVICES,
    DTYPES,
    FORMATS,
    lies_as,
    numbers,
    out_sizes,
    place,
    slow_convolution,
    slow_max_pool,
    slow_route,
    slow_window_spread,
    slow_window_sum,
)

from ebp_cuda import ops

POOLS = [
    ((7, 6), (3, 3), (2, 2), (0, 0), (1, 1)),
    ((7, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((6, 9), (2, 3), (3, 2), (1, 0), (1, 1)),
    ((9, 8), (3, 2), (2, 1), (2, 1), (2, 3)),
    ((5, 5), (1, 1), (2, 3), (0, 0), (1, 1)),
    ((4, 5), (4, 5), (1, 1), (0, 0), (1, 1)),
    ((8, 7), (3, 4), (1, 2), (3, 2), (3, 1)),
]
CHANNELS = [1, 3, 37]


def cases(pools=POOLS) -> list:
    """A pool, an output size (floor, ceil, beyond) and a number of channels."""
    found = []
    for position, (size, *rest) in enumerate(pools):
        sizes = [sorted(out_sizes(size[a], *(values[a] for values in rest))) for a in (0, 1)]
        for step in range(3):
            out = tuple(choices[min(step, len(choices) - 1)] for choices in sizes)
            found.append((size, out, *rest, CHANNELS[(position + step) % 3]))
    return found


def ident(case: object) -> str:
    return str(case).replace(" ", "")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("case", cases(), ids=ident)
class TestPools:
    """Small multiples of a quarter are exact in every dtype, so results must be equal, not close."""

    def test_max_pool_and_route(self, case, dtype, memory_format, device) -> None:
        size, out, kernel, stride, padding, dilation, channels = case
        x, p = numbers(2, channels, *size), numbers(6, channels, *out, seed=1)
        y, winner = slow_max_pool(x, out, kernel, stride, padding, dilation)
        got, codes = ops.max_pool2d(place(x, dtype, memory_format, device), kernel, stride, padding, dilation, out)
        assert codes.dtype == torch.uint8
        assert torch.equal(got.cpu().double(), y)
        assert torch.equal(codes.cpu().long(), winner)
        below = ops.max_pool2d_route(
            place(p, dtype, memory_format, device), codes, size, kernel, stride, padding, dilation
        )
        assert torch.equal(below.cpu().double(), slow_route(p, winner, size, kernel, stride, padding, dilation))
        assert all(lies_as(result, memory_format, channels) for result in (got, codes))
        assert lies_as(below, memory_format if p.shape[2:].numel() > 1 else torch.channels_last, channels)

    def test_window_sum_and_spread(self, case, dtype, memory_format, device) -> None:
        size, out, kernel, stride, padding, _, channels = case
        x, r = numbers(2, channels, *size), numbers(2, channels, *out, seed=1)
        y = ops.window_sum(place(x, dtype, memory_format, device), kernel, stride, padding, out)
        assert torch.equal(y.cpu().double(), slow_window_sum(x, out, kernel, stride, padding))
        below = ops.window_spread(place(r, dtype, memory_format, device), size, kernel, stride, padding)
        assert torch.equal(below.cpu().double(), slow_window_spread(r, size, kernel, stride, padding))
        assert lies_as(y, memory_format, channels)
        assert lies_as(below, memory_format if r.shape[2:].numel() > 1 else torch.channels_last, channels)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("kernel,stride,padding", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (7, 1, 0), (5, 3, 2)])
def test_avg_pool_is_torchs(kernel, stride, padding, ceil_mode, count_include_pad, memory_format, device) -> None:
    x = place(numbers(2, 19, 9, 8), torch.float64, memory_format, device)
    wanted = torch.nn.functional.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)
    got = ops.avg_pool2d(x, *([v, v] for v in (kernel, stride, padding)), wanted.shape[2:], count_include_pad)
    torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-14)


def test_avg_pool_of_an_empty_window_is_caffes_nan() -> None:
    y = ops.avg_pool2d(torch.ones(1, 1, 6, 6), (2, 2), (3, 3), (0, 0), (3, 3), True)
    assert torch.equal(y[0, 0, :2, :2], torch.ones(2, 2))
    assert y[0, 0, 2].isnan().all() and y[0, 0, :, 2].isnan().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
def test_max_pool_lets_nan_through(memory_format, device) -> None:
    x = place(numbers(1, 20, 6, 6), torch.float32, memory_format, device)
    x[0, 3, 2, 2] = float("nan")
    y, winner = ops.max_pool2d(x, (3, 3), (1, 1), (0, 0), (1, 1), (4, 4))
    assert y[0, 3, :3, :3].isnan().all() and not y[0, [0, 1, 2, *range(4, 20)]].isnan().any()
    assert winner[0, 3, 0, 0] == 8 and winner[0, 3, 2, 2] == 0


def test_max_pool_of_minus_infinity_has_a_winner() -> None:
    y, winner = ops.max_pool2d(torch.full((1, 1, 2, 2), -torch.inf), (2, 2), (2, 2), (0, 0), (1, 1), (1, 1))
    assert y.item() == -torch.inf and winner.item() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
def test_large_windows_have_int32_winners(memory_format, device) -> None:
    x, out, kernel = numbers(1, 5, 20, 19), (2, 1), (17, 18)
    y, winner = slow_max_pool(x, out, kernel, (3, 1), (0, 0), (1, 1))
    got, codes = ops.max_pool2d(place(x, torch.float32, memory_format, device), kernel, (3, 1), (0, 0), (1, 1), out)
    assert codes.dtype == torch.int32 and torch.equal(codes.cpu().long(), winner) and torch.equal(got.cpu().double(), y)
    p = numbers(2, 5, *out)
    below = ops.max_pool2d_route(
        place(p, torch.float32, memory_format, device), codes, (20, 19), kernel, (3, 1), (0, 0), (1, 1)
    )
    assert torch.equal(below.cpu().double(), slow_route(p, winner, (20, 19), kernel, (3, 1), (0, 0), (1, 1)))


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
def test_routing_by_nobodys_winner_stays_inside(memory_format) -> None:
    p = place(torch.ones(1, 4, 2, 2), torch.float32, memory_format, "cpu")
    for code in (255, 9, 8):  # none, no tap of this window, a tap that lies in the padding for some outputs
        winner = torch.full_like(p, code, dtype=torch.uint8)
        below = ops.max_pool2d_route(p, winner, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1))
        assert below.sum() == (4 if code == 8 else 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 7, 4), (3, 37, 5, 4), (3, 2, 2, 3, 2)])
@pytest.mark.parametrize("columns", [1, 4])
def test_share_and_gate(shape, columns, dtype, device) -> None:
    for memory_format in FORMATS if len(shape) == 4 else FORMATS[:1]:
        p = numbers(shape[0] * columns, *shape[1:], dtype=dtype).to(device).contiguous(memory_format=memory_format)
        z = numbers(*shape, dtype=dtype, seed=1).to(device).contiguous(memory_format=memory_format)
        assert (z == 0).any() or z.numel() < 40
        wide = z.repeat_interleave(columns, 0)
        assert torch.equal(ops.divide_or_zero(p, z), torch.where(wide == 0, 0, p / wide))
        assert torch.equal(ops.gate(p, z), p * wide)
        assert ops.divide_or_zero(p, z).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("size", [(5, 4), (1, 6), (6, 1), (1, 1)])
def test_share_and_gate_take_slices_of_channels(size, columns, device) -> None:
    p = place(numbers(2 * columns, 30, *size), torch.float32, torch.channels_last, device)
    z = place(numbers(2, 30, *size, seed=1), torch.float32, torch.channels_last, device)
    for part in (slice(0, 30), slice(0, 7), slice(3, 22), slice(29, 30)):
        for a, b in ((p[:, part], z[:, part]), (p[:, part].contiguous(), z[:, part]), (p[:, part], z[:, part].clone())):
            assert torch.equal(ops.gate(a, b), a * b.repeat_interleave(columns, 0))
            wide = b.repeat_interleave(columns, 0)
            assert torch.equal(ops.divide_or_zero(a, b), torch.where(wide == 0, 0, a / wide))
    sliced = p[:, 3:22]
    assert ops.gate(sliced, z[:, 3:22]).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.ops.ebp_cuda.gate(sliced, z[:, 3:22]), ops.gate(sliced, z[:, 3:22]))  # and uncopied


def test_sharing_of_a_zero_normaliser_is_zero_even_for_nan() -> None:
    p = torch.tensor([1.0, float("nan"), float("inf"), -2.0, 1.0])
    z = torch.tensor([0.0, 0.0, -0.0, 4.0, float("nan")])
    r = ops.divide_or_zero(p, z)
    assert torch.equal(r[:4], torch.tensor([0.0, 0.0, 0.0, -0.5])) and r[4].isnan()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
def test_a_normalizer_below_the_smallest_normal_number_counts_as_zero(dtype, device) -> None:
    least = torch.finfo(dtype).tiny
    z = torch.tensor([least, -least, least / 2, -least / 2, least * 2**-20, 0.0], dtype=dtype, device=device).repeat(7)
    assert bool((z[2:5] != 0).all()), "the numbers that are tested were flushed to 0 by the test itself"
    r = ops.divide_or_zero(torch.ones_like(z), z).reshape(7, -1)
    assert torch.equal(r[:, :2], torch.tensor([1 / least, -1 / least], dtype=dtype, device=device).expand(7, 2))
    assert not r[:, 2:].any()
    assert ops.without_excitation(z.abs())[:6].tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("size,beta", [(5, 0.75), (3, 0.5), (1, 1.0), (5, 1.3), (4, 0.75), (99, 0.75)])
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (2, 40, 13, 11), (1, 3, 4), (3, 33)])
def test_lrn(shape, size, beta, dtype, device) -> None:
    for memory_format in FORMATS if len(shape) == 4 else FORMATS[:1]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator, dtype=dtype).to(device).contiguous(memory_format=memory_format)
        exact, sums = x.double(), torch.zeros(shape, dtype=torch.float64, device=device)
        for c in range(shape[1]):
            first, end = max(0, c - (size - 1) // 2), c + size - (size - 1) // 2
            sums[:, c] = exact[:, first:end].square().sum(1)
        wanted = exact / (2.0 + 0.3 / size * sums) ** beta
        tolerance = 8e-7 if dtype == torch.float32 else 2e-15
        torch.testing.assert_close(ops.lrn(x, size, 0.3, beta, 2.0).double(), wanted, rtol=tolerance, atol=0)


def test_lrn_of_odd_size_is_torchs() -> None:
    x = torch.randn(2, 24, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(
        ops.lrn(x, 5, 1e-2, 0.75, 1.0), torch.nn.functional.local_response_norm(x, 5, 1e-2, 0.75, 1.0)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_max_winner(count, dtype, device) -> None:
    xs = [numbers(3, 11, 13, dtype=dtype, seed=i) for i in range(count)]
    wanted = torch.zeros(3, 11, 13, dtype=torch.int64)
    for at in itertools.product(*map(range, wanted.shape)):
        best = 0 if count == 1 or xs[0][at] > xs[1][at] else 1
        for i in range(2, count):
            best = i if xs[i][at] > xs[best][at] else best
        wanted[at] = best
    got = ops.max_winner([x.to(device) for x in xs])
    assert got.dtype == torch.uint8 and torch.equal(got.cpu().long(), wanted)


CONVOLUTIONS = [
    # size, kernel, stride, padding (top, left, bottom, right), dilation, groups, in, out
    ((7, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 4, 6),
    ((9, 8), (3, 2), (2, 3), (0, 0, 0, 0), (1, 1), 1, 3, 5),
    ((9, 8), (3, 2), (2, 3), (0, 1, 1, 0), (1, 1), 2, 4, 6),
    ((8, 8), (3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 6, 6, 6),
    ((9, 9), (2, 3), (1, 2), (2, 1, 0, 3), (3, 2), 1, 2, 3),
    ((6, 6), (5, 5), (4, 4), (2, 2, 2, 2), (1, 1), 1, 2, 2),
    ((5, 4), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, 5, 7),
    ((7, 7), (1, 1), (3, 3), (0, 0, 0, 0), (1, 1), 1, 2, 3),
    ((4, 4), (4, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1, 3, 2),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ident)
def test_convolution_and_its_adjoint(case, memory_format, device) -> None:
    size, kernel, stride, padding, dilation, groups, ins, outs = case
    weight = numbers(outs, ins // groups, *kernel, seed=2).clamp(min=0)
    x = numbers(2, ins, *size)
    rows = slow_convolution(weight, ins, size, stride, padding, dilation, groups)
    z = ops.conv2d_normalizer(
        place(x, torch.float64, memory_format, device), weight.to(device), stride, padding, dilation, groups
    )
    assert torch.equal(z.cpu().flatten(1), x.flatten(1) @ rows.T)
    assert z.is_contiguous(memory_format=memory_format)
    r = numbers(6, *z.shape[1:], seed=3)
    below = ops.conv2d_sweep(
        place(r, torch.float64, memory_format, device), weight.to(device), size, stride, padding, dilation, groups
    )
    assert torch.equal(below.cpu().flatten(1), r.flatten(1) @ rows)
    assert tuple(below.shape) == (6, ins, *size)
    assert z.shape[2:].numel() == 1 or below.is_contiguous(memory_format=memory_format)
