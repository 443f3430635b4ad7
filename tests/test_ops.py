"""Every op against a slow, obvious restatement in float64, in both memory formats, on every device there is."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
import torch

from ebp_cuda import ops
from ebp_cuda.errors import ShapeError, UnsupportedError

Tensor = torch.Tensor
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float32, torch.float64]
FLT_MAX = torch.finfo(torch.float32).max


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Small multiples of a quarter: sums are exact, and maxima have ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, shape, generator=generator).to(dtype) / 4


def windows(size: Sequence[int], out: Sequence[int], kernel, stride, padding, dilation=(1, 1)) -> Iterator[tuple]:
    """(output row, output column, [(tap, input row, input column) inside the image])."""
    for oh, ow in itertools.product(range(out[0]), range(out[1])):
        inside = []
        for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
            h, w = oh * stride[0] - padding[0] + i * dilation[0], ow * stride[1] - padding[1] + j * dilation[1]
            if 0 <= h < size[0] and 0 <= w < size[1]:
                inside.append((i * kernel[1] + j, h, w))
        yield oh, ow, inside


def slow_max_pool(x: Tensor, out, kernel, stride, padding, dilation) -> tuple[Tensor, Tensor]:
    y = torch.full((*x.shape[:2], *out), -FLT_MAX, dtype=x.dtype)
    none = 255 if kernel[0] * kernel[1] <= 255 else -1
    winner = torch.full(y.shape, none, dtype=torch.int64)
    for oh, ow, inside in windows(x.shape[2:], out, kernel, stride, padding, dilation):
        for position, (tap, h, w) in enumerate(inside):
            wins = torch.tensor(True) if position == 0 else x[:, :, h, w] > y[:, :, oh, ow]
            y[:, :, oh, ow] = torch.where(wins, x[:, :, h, w], y[:, :, oh, ow])
            winner[:, :, oh, ow] = torch.where(wins, tap, winner[:, :, oh, ow])
    return y, winner


def slow_route(p: Tensor, winner: Tensor, size, kernel, stride, padding, dilation) -> Tensor:
    below = torch.zeros(*p.shape[:2], *size, dtype=p.dtype)
    columns = p.shape[0] // winner.shape[0]
    winner = winner.repeat_interleave(columns, 0)
    for oh, ow, inside in windows(size, p.shape[2:], kernel, stride, padding, dilation):
        for tap, h, w in inside:
            below[:, :, h, w] += torch.where(winner[:, :, oh, ow] == tap, p[:, :, oh, ow], 0.0)
    return below


def slow_window_sum(x: Tensor, out, kernel, stride, padding) -> Tensor:
    y = torch.zeros(*x.shape[:2], *out, dtype=x.dtype)
    for oh, ow, inside in windows(x.shape[2:], out, kernel, stride, padding):
        for _, h, w in inside:
            y[:, :, oh, ow] += x[:, :, h, w]
    return y


def slow_window_spread(r: Tensor, size, kernel, stride, padding) -> Tensor:
    below = torch.zeros(*r.shape[:2], *size, dtype=r.dtype)
    for oh, ow, inside in windows(size, r.shape[2:], kernel, stride, padding):
        for _, h, w in inside:
            below[:, :, h, w] += r[:, :, oh, ow]
    return below


def out_sizes(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> set[int]:
    """Floor, ceil, and one more than either, which leaves the last window empty."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    return {room // stride + 1, -(-room // stride) + 1, -(-room // stride) + 2} if room >= 0 else set()


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
    for place, (size, *rest) in enumerate(pools):
        sizes = [sorted(out_sizes(size[a], *(values[a] for values in rest))) for a in (0, 1)]
        for step in range(3):
            out = tuple(choices[min(step, len(choices) - 1)] for choices in sizes)
            found.append((size, out, *rest, CHANNELS[(place + step) % 3]))
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


def lies_as(t: Tensor, memory_format: torch.memory_format, channels: int) -> bool:
    return channels == 1 or t.is_contiguous(memory_format=memory_format)


def place(t: Tensor, dtype: torch.dtype, memory_format: torch.memory_format, device: str) -> Tensor:
    return t.to(device=device, dtype=dtype).contiguous(memory_format=memory_format)


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
        assert torch.equal(ops.share(p, z), torch.where(wide == 0, 0, p / wide))
        assert torch.equal(ops.gate(p, z), p * wide)
        assert ops.share(p, z).is_contiguous(memory_format=memory_format)


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
            assert torch.equal(ops.share(a, b), torch.where(wide == 0, 0, a / wide))
    sliced = p[:, 3:22]
    assert ops.gate(sliced, z[:, 3:22]).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.ops.ebp_cuda.gate(sliced, z[:, 3:22]), ops.gate(sliced, z[:, 3:22]))  # and uncopied


def test_sharing_of_a_zero_normaliser_is_zero_even_for_nan() -> None:
    p = torch.tensor([1.0, float("nan"), float("inf"), -2.0, 1.0])
    z = torch.tensor([0.0, 0.0, -0.0, 4.0, float("nan")])
    r = ops.share(p, z)
    assert torch.equal(r[:4], torch.tensor([0.0, 0.0, 0.0, -0.5])) and r[4].isnan()


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


def slow_convolution(weight: Tensor, ins: int, size, stride, padding, dilation, groups) -> Tensor:
    """The convolution as a dense matrix [outputs, inputs]."""
    kernel = weight.shape[2:]
    out = [(size[a] + padding[a] + padding[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    dense = torch.zeros(weight.shape[0], *out, ins, *size, dtype=weight.dtype)
    for oh, ow, inside in windows(size, out, kernel, stride, padding[:2], dilation):
        for tap, h, w in inside:
            for o, c in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
                channel = o // (weight.shape[0] // groups) * weight.shape[1] + c
                dense[o, oh, ow, channel, h, w] = weight[o, c].flatten()[tap]
    return dense.flatten(3).flatten(0, 2)


def sample_calls(device: str = "cpu", memory_format: torch.memory_format = torch.channels_last) -> dict[str, tuple]:
    """Arguments for every op there is."""
    x, p = (place(numbers(n, 20, 7, 6), torch.float32, memory_format, device) for n in (2, 6))
    pool = ([3, 3], [2, 2], [1, 1], [1, 1], [4, 4])
    up, winner = torch.ops.ebp_cuda.max_pool2d(x, *pool)
    w = numbers(8, 20, 3, 3, dtype=torch.float32).to(device)
    r = torch.ops.ebp_cuda.conv2d_normalizer(p, w, [2, 2], [1, 1, 0, 1], [1, 1], 1)
    return {
        "share": (p, x),
        "gate": (p, x),
        "max_winner": ([x, x + 1, x - 1],),
        "max_pool2d": (x, *pool),
        "max_pool2d_route": (up.repeat(3, 1, 1, 1).contiguous(memory_format=memory_format), winner, [7, 6], *pool[:4]),
        "window_sum": (x, *pool[:3], [4, 4]),
        "window_spread": (up, [7, 6], *pool[:3]),
        "avg_pool2d": (x, *pool[:3], [4, 4], True),
        "lrn": (x, 5, 1e-4, 0.75, 1.0),
        "conv2d_normalizer": (x, w, [2, 2], [1, 1, 0, 1], [1, 1], 1),
        "conv2d_sweep": (r, w, [7, 6], [2, 2], [1, 1, 0, 1], [1, 1], 1),
    }


def declared() -> set[str]:
    names = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("ebp_cuda::") for name in names if name.startswith("ebp_cuda::")}


def test_the_samples_cover_every_op() -> None:
    assert set(sample_calls()) == declared()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", sorted(declared()))
def test_opcheck(name, memory_format, device) -> None:
    torch.library.opcheck(getattr(torch.ops.ebp_cuda, name).default, sample_calls(device, memory_format)[name])


def bits(calls: dict[str, tuple]) -> list[bytes]:
    found = []
    for name, arguments in calls.items():
        result = getattr(torch.ops.ebp_cuda, name)(*arguments)
        found += [t.cpu().contiguous().numpy().tobytes() for t in (result if isinstance(result, tuple) else [result])]
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_give_the_same_bits(device) -> None:
    calls = sample_calls(device)
    first, threads = bits(calls), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert bits(calls) == first
    finally:
        torch.set_num_threads(threads)


WITH_ISA = """
import hashlib, torch
from ebp_cuda import ops
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 43, 15, 13, dtype=dtype).contiguous(memory_format=memory_format)
        y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (8, 7))
        back = (15, 13), (3, 3), (2, 2), (1, 1)
        results = [y, winner, ops.max_pool2d_route(y, winner, *back, (1, 1)), ops.window_spread(y, *back)]
        results += [ops.avg_pool2d(x, *back[1:], (8, 7), True), ops.share(x, x * x), ops.gate(x, x)]
        results += [ops.lrn(x, 5, 1e-2, beta, 1.0) for beta in (0.75, 0.6)] + [ops.max_winner([x, -x, x * x])]
        for t in results:
            digest.update(t.contiguous().numpy().tobytes())
print(ops.build_info()["cpu_isa"], digest.hexdigest())
"""


def test_instruction_sets_agree_to_the_bit() -> None:
    found = {}
    for isa in ("default", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", WITH_ISA], env={**os.environ, "EBP_CPU_ISA": isa}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        used, digest = done.stdout.split()
        found[used] = digest
    assert "default" in found and len(set(found.values())) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batches_give_empty_results(device) -> None:
    x = torch.zeros(0, 4, 7, 6, device=device)
    y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4))
    assert y.shape == winner.shape == (0, 4, 4, 4)
    assert ops.max_pool2d_route(y, winner, (7, 6), (3, 3), (2, 2), (1, 1), (1, 1)).shape == x.shape
    assert ops.share(x, x).shape == ops.gate(x, x).shape == ops.lrn(x, 5, 1.0, 0.75, 1.0).shape == x.shape
    assert ops.max_winner([x, x]).shape == x.shape
    assert ops.window_sum(x, (3, 3), (2, 2), (1, 1), (4, 4)).shape == y.shape
    assert ops.window_spread(y, (7, 6), (3, 3), (2, 2), (1, 1)).shape == x.shape
    w = torch.zeros(3, 4, 1, 1, device=device)
    assert ops.conv2d_normalizer(x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1).shape == (0, 3, 7, 6)


def test_other_strides_are_brought_into_a_format() -> None:
    x = numbers(2, 6, 9, 8, dtype=torch.float32)
    for odd in (x.permute(0, 1, 3, 2), x[:, ::2], x.to(memory_format=torch.channels_last)[:, :3], x[:, :, 1:, 1:]):
        y, _ = ops.max_pool2d(odd, (2, 2), (2, 2), (0, 0), (1, 1), (3, 3))
        assert torch.equal(y, torch.nn.functional.max_pool2d(odd, 2, 2)[:, :, :3, :3])
        assert torch.equal(ops.lrn(odd, 5, 1e-2, 0.75, 1.0), ops.lrn(odd.contiguous(), 5, 1e-2, 0.75, 1.0))
        assert torch.equal(ops.gate(odd, odd.contiguous()), odd * odd)
    column = x[:, :, :1, :1].to(memory_format=torch.channels_last)
    assert ops.window_spread(column, (3, 3), (3, 3), (1, 1), (0, 0)).is_contiguous(memory_format=torch.channels_last)


X = torch.zeros(2, 4, 7, 6)
PAIRS = ((3, 3), (2, 2), (1, 1), (1, 1))
REFUSALS = [
    (lambda: ops.share(torch.zeros(3, 4), torch.zeros(2, 4)), ["share", "p", "3 rows", "multiple of the 2", "z"]),
    (lambda: ops.share(torch.zeros(4, 4), torch.zeros(2, 5)), ["share", "[4, 4]", "[2, 5]", "first axis"]),
    (lambda: ops.share(torch.zeros(()), torch.zeros(())), ["share"]),
    (lambda: ops.gate(X, X.double()), ["gate", "x", "torch.float64", "one dtype"]),
    (lambda: ops.gate(X.half(), X.half()), ["gate", "s", "torch.float16", "torch.float32"]),
    (lambda: ops.max_pool2d(X[0], *PAIRS, (4, 4)), ["max_pool2d", "x", "[4, 7, 6]", "[N, C, H, W]"]),
    (lambda: ops.max_pool2d(X, (3, 0), *PAIRS[1:], (4, 4)), ["max_pool2d", "kernel=[3, 0]"]),
    (lambda: ops.max_pool2d(X, (3, 3), (2,), *PAIRS[2:], (4, 4)), ["max_pool2d", "stride=[2]"]),
    (lambda: ops.max_pool2d_route(X, X, (7, 6), *PAIRS), ["max_pool2d_route", "winner", "torch.uint8"]),
    (lambda: ops.window_sum(X.int(), *PAIRS[:3], (4, 4)), ["window_sum", "x", "torch.int32"]),
    (lambda: ops.lrn(X, 0, 1.0, 0.75, 1.0), ["lrn", "size=0"]),
    (lambda: ops.max_winner([]), ["max_winner", "0 tensors"]),
    (lambda: ops.max_winner([X, X[:1]]), ["max_winner", "xs[1]", "[1, 4, 7, 6]"]),
    (
        lambda: ops.conv2d_normalizer(X, torch.zeros(3, 5, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_normalizer", "4 channels", "5"],
    ),
    (
        lambda: ops.conv2d_normalizer(X, torch.zeros(3, 4, 9, 9), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_normalizer", "[9, 9]", "[7, 6]"],
    ),
    (
        lambda: ops.conv2d_sweep(X, torch.zeros(3, 4, 1, 1), (7, 6), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_sweep", "[2, 4, 7, 6]", "3, 7, 6"],
    ),
    (
        lambda: ops.conv2d_sweep(X, torch.zeros(4, 4, 1, 1), (7, 6), (1, 1), (0, 0), (1, 1), 1),
        ["conv2d_sweep", "padding=[0, 0]", "bottom"],
    ),
    (lambda: ops.gate(torch.zeros(1).expand(2**31), torch.zeros(1)), ["gate", "2147483648", "2**31"]),
]


@pytest.mark.parametrize("call,words", REFUSALS)
def test_bad_input_is_refused_with_names(call, words) -> None:
    with pytest.raises(ShapeError) as refusal:
        call()
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_callers_of_the_bare_ops_are_refused_too() -> None:
    bare = torch.ops.ebp_cuda
    with pytest.raises(RuntimeError, match="share: p has 3 rows"):
        bare.share(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="gate: s must be contiguous, channels_last, or a slice"):
        bare.gate(torch.zeros(4, 4).T[::2], torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match=r"gate: s must be contiguous, .* like its partner"):
        bare.gate(X, X.contiguous(memory_format=torch.channels_last))
    with pytest.raises(RuntimeError, match="winner must be Byte"):
        bare.max_pool2d_route(X, X, [7, 6], [3, 3], [1, 1], [1, 1], [1, 1])
    with pytest.raises(RuntimeError, match="out of range"):
        bare.max_pool2d(X, [3, 3], [2**28, 1], [1, 1], [1, 1], [40, 1])
    with pytest.raises(RuntimeError, match="float32 or float64"):
        bare.lrn(X.half(), 5, 1.0, 0.75, 1.0)


def test_devices_without_kernels_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="device='xpu'"):
        ops.require_device(torch.device("xpu"))
    if not torch.cuda.is_available():
        with pytest.raises(UnsupportedError, match="device='cuda'"):
            ops.require_device(torch.device("cuda"))


def test_a_build_without_kernels_says_how_to_get_them(monkeypatch) -> None:
    monkeypatch.setattr(ops, "_HAS_CUDA", False)
    with pytest.raises(UnsupportedError, match=r"no CUDA kernels.*nvcc.*pip install"):
        ops.require_device(torch.device("cuda"))


def test_the_ops_trace_under_export() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4))
            return ops.max_pool2d_route(y, winner, (7, 6), (3, 3), (2, 2), (1, 1), (1, 1))

    x = numbers(2, 4, 7, 6, dtype=torch.float32)
    assert torch.equal(torch.export.export(Net(), (x,)).module()(x), Net()(x))
