"""Every CUDA kernel of one element a thread, in the emulator, against the CPU op: ragged sizes, layouts, all orders."""

from __future__ import annotations

import itertools
import random
import re
import subprocess

import numpy as np
import pytest
import torch
from support import emu_build, emu_ops

import ebp_cuda.ops

pytestmark = pytest.mark.emu

cpu = torch.ops.ebp_cuda
DTYPES = (torch.float32, torch.float64)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
CHANNELS = (1, 3, 7, 17, 33)


def tensor(shape, dtype=torch.float32, layout=torch.contiguous_format, *, zeros=0.3, whole=False):
    """Positive and negative values, some exact zeros and many ties; `whole`: 0 to 7, which any order sums exactly."""
    t = torch.randint(0, 8, shape).to(dtype) if whole else torch.randn(shape, dtype=dtype)
    if not whole:
        t = torch.where(torch.rand(shape) < 0.4, (t * 2).round() / 2, t)
    t[torch.rand(shape) < zeros] = 0
    return t.contiguous(memory_format=layout) if t.dim() == 4 else t


def assert_same(got, wanted):
    """Equal to the bit, but for the sign of NaN."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    same = (got == wanted) | ((got != got) & (wanted != wanted))
    assert same.all(), f"{int((~same).sum())} of {same.numel()} differ"
    if got.is_floating_point():
        assert torch.equal(torch.signbit(got[got == 0]), torch.signbit(wanted[got == 0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "columns"),
    [((1, 1), 1), ((2, 7), 3), ((3, 17, 3, 5), 1), ((2, 33, 1, 4), 20), ((1, 255), 1), ((2, 128), 2), ((1, 257), 1)],
)  # the last three about whole blocks of threads
@pytest.mark.parametrize("op", ["share", "gate"])
def test_pointwise(op, shape, columns, dtype):
    for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
        a = tensor((shape[0] * columns, *shape[1:]), dtype, layout)
        b = tensor(shape, dtype, layout)
        wanted = getattr(cpu, op)(a, b)
        assert_same(emu_ops.in_all_orders(lambda a=a, b=b: getattr(emu_ops, op)(a, b)), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_share_of_a_normalizer_about_the_smallest_normal_number(dtype):
    least = torch.finfo(dtype).tiny
    z = torch.tensor([[least, -least, least / 2, -least / 2, 0.0, float("nan"), 1.0]], dtype=dtype)
    assert_same(emu_ops.share(torch.ones_like(z), z), cpu.share(torch.ones_like(z), z))
    assert emu_ops.share(torch.ones_like(z), z)[0, :5].tolist() == [1 / least, -1 / least, 0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_max_winner(count, dtype):
    xs = [tensor((2, 7, 3, 5), dtype, zeros=0.5) for _ in range(count)]
    xs[0][0, 0, 0, 0] = xs[-1][0, 0, 0, 1] = float("nan")
    assert_same(emu_ops.in_all_orders(lambda: emu_ops.max_winner(xs)), cpu.max_winner(xs))


@pytest.mark.parametrize("op", ["share", "gate"])
def test_pointwise_on_slices_of_channels(op):
    a, b = (tensor((n, 17, 3, 2), layout=torch.channels_last)[:, 4:11] for n in (6, 2))
    assert_same(emu_ops.in_all_orders(lambda: getattr(emu_ops, op)(a, b)), getattr(cpu, op)(a, b))


def pool_cases(count, dilated):
    """Windows over ragged planes: every channel count and kernel, output sizes as floor, as ceil, and one beyond."""
    chance = random.Random(5)
    for i in range(count):
        size = [chance.randint(1, 13) for _ in range(2)]
        kernel = [chance.choice((1, 2, 3, 5, 7)) for _ in range(2)]
        stride = [chance.randint(1, 3) for _ in range(2)]
        padding = [chance.randint(0, k // 2) for k in kernel]
        dilation = [chance.randint(1, 2) if dilated else 1 for _ in range(2)]
        spans = [size[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1 for a in range(2)]
        out = [max(1, -(-max(spans[a], 0) // stride[a]) + chance.randint(0, 2)) for a in range(2)]
        shape = (1 + i % 2, CHANNELS[i % len(CHANNELS)], *size)
        kinds = DTYPES[i // 2 % 2], LAYOUTS[i % 2]
        yield pytest.param(shape, kernel, stride, padding, dilation, out, *kinds, id=f"{i}-{shape}-{kernel}")


POOL = ("shape", "kernel", "stride", "padding", "dilation", "out", "dtype", "layout")


@pytest.mark.parametrize(POOL, [*pool_cases(40, True)])
def test_max_pool_and_its_route(shape, kernel, stride, padding, dilation, out, dtype, layout):
    x = tensor(shape, dtype, layout)
    emu_ops.memory(x)[:: max(7, x.numel() // 5)] = float("nan") if shape[1] == 7 else 1.5
    wanted, winner = cpu.max_pool2d(x, kernel, stride, padding, dilation, out)
    got, code = emu_ops.in_all_orders(lambda: emu_ops.max_pool2d(x, kernel, stride, padding, dilation, out))
    assert_same(got, wanted)
    assert_same(code, winner)
    p = tensor((shape[0] * 3, shape[1], *out), dtype, layout)
    args = (shape[2:], kernel, stride, padding, dilation)
    below = emu_ops.in_all_orders(lambda: emu_ops.max_pool2d_route(p, code, *args))
    assert_same(below + 0, cpu.max_pool2d_route(p, winner, *args) + 0)  # + 0: no sign on zero


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_with_wide_winners(dtype):
    x, p = tensor((1, 3, 17, 16), dtype), tensor((2, 3, 1, 1), dtype)
    wanted, winner = cpu.max_pool2d(x, [17, 16], [1, 1], [0, 0], [1, 1], [1, 1])
    got, code = emu_ops.in_all_orders(lambda: emu_ops.max_pool2d(x, [17, 16], [1, 1], [0, 0], [1, 1], [1, 1]))
    assert code.dtype == torch.int32
    assert_same(got, wanted)
    assert_same(code, winner)
    args = ([17, 16], [17, 16], [1, 1], [0, 0], [1, 1])
    below = emu_ops.in_all_orders(lambda: emu_ops.max_pool2d_route(p, code, *args))
    assert_same(below, cpu.max_pool2d_route(p, code, *args))


@pytest.mark.parametrize(POOL, [*pool_cases(30, False)])
def test_window_sums(shape, kernel, stride, padding, dilation, out, dtype, layout):
    x, r = tensor(shape, dtype, layout), tensor((*shape[:2], *out), dtype, layout)
    args = (kernel, stride, padding, out)
    assert_same(emu_ops.in_all_orders(lambda: emu_ops.window_sum(x, *args)), cpu.window_sum(x, *args))
    for whole in (True, False):
        got = emu_ops.in_all_orders(lambda whole=whole: emu_ops.avg_pool2d(x, *args, whole))
        assert_same(got, cpu.avg_pool2d(x, *args, whole))
    back = (shape[2:], kernel, stride, padding)
    assert_same(emu_ops.in_all_orders(lambda: emu_ops.window_spread(r, *back)), cpu.window_spread(r, *back))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize(("shape", "size"), [((1, 1, 1, 1), 5), ((2, 7, 3, 5), 4), ((1, 33, 2, 3), 5), ((3, 17), 3)])
def test_lrn(shape, size, beta, dtype):
    for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
        x = tensor(shape, dtype, layout) * 30
        got = emu_ops.in_all_orders(lambda x=x: emu_ops.lrn(x, size, 0.1, beta, 1.0))
        assert_same(got, cpu.lrn(x, size, 0.1, beta, 1.0))


def conv_cases():
    """Every channel count, kernel, stride, padding (uneven too), dilation and group count somewhere; N from 1."""
    chance = random.Random(7)
    kernels = [(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (3, 2)]
    for i, (channels, kernel) in enumerate(itertools.product(CHANNELS, kernels)):
        groups = channels if i % 4 == 3 else 1
        outs = groups * chance.choice((1, 2)) if groups > 1 else chance.choice(CHANNELS)
        stride = [chance.randint(1, 3) for _ in range(2)]
        dilation = [chance.choice((1, 1, 2)) for _ in range(2)]
        padding = [chance.randint(0, kernel[a % 2] // 2 * dilation[a % 2]) for a in range(4)]
        size = [dilation[a] * (kernel[a] - 1) + 1 + chance.randint(0, 4) for a in range(2)]
        batch = chance.choice((1, 2))
        shape, weights = (batch, channels, *size), (outs, channels // groups, *kernel)
        kinds = DTYPES[i % 2], LAYOUTS[i // 2 % 2]
        name = f"{channels}-{outs}-{kernel}-s{stride}-p{padding}-d{dilation}-g{groups}"
        yield pytest.param(shape, weights, stride, padding, dilation, groups, *kinds, id=name)


CONV = pytest.mark.parametrize(
    ("shape", "weights", "stride", "padding", "dilation", "groups", "dtype", "layout"), [*conv_cases()]
)


@CONV
def test_convolutions_of_whole_numbers_are_exact(shape, weights, stride, padding, dilation, groups, dtype, layout):
    x, w = tensor(shape, dtype, layout, whole=True), tensor(weights, dtype, whole=True)
    geometry = (stride, padding, dilation, groups)
    z = emu_ops.in_all_orders(lambda: emu_ops.conv2d_normalizer(x, w, *geometry))
    assert_same(z, cpu.conv2d_normalizer(x, w, *geometry))
    r = tensor((2 * shape[0], *z.shape[1:]), dtype, layout, whole=True)
    below = emu_ops.in_all_orders(lambda: emu_ops.conv2d_sweep(r, w, shape[2:], *geometry))
    assert_same(below, cpu.conv2d_sweep(r, w, shape[2:], *geometry))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_convolutions_of_any_numbers(layout, dtype):
    """Sums of positive terms in another order differ by less than (number of terms) * eps."""
    x, w = torch.rand(2, 17, 6, 7, dtype=dtype).contiguous(memory_format=layout), torch.rand(7, 17, 3, 3, dtype=dtype)
    geometry, eps = ([2, 1], [1, 0, 1, 2], [1, 1], 1), torch.finfo(dtype).eps
    z = emu_ops.conv2d_normalizer(x, w, *geometry)
    torch.testing.assert_close(z, cpu.conv2d_normalizer(x, w, *geometry), rtol=17 * 9 * eps, atol=0)
    r = torch.rand_like(z)
    below = emu_ops.conv2d_sweep(r, w, [6, 7], *geometry)
    torch.testing.assert_close(below, cpu.conv2d_sweep(r, w, [6, 7], *geometry), rtol=7 * 9 * eps, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_that_is_aligned_to_its_elements_only(layout):
    """A view into a larger tensor may begin at any element."""
    x, w = tensor((1, 7, 5, 5), layout=layout, whole=True), tensor((3, 7, 3, 3), whole=True)
    emulator = emu_build.emulator()
    emulator.set_misalignment(4)
    try:
        z = emu_ops.conv2d_normalizer(x, w, [1, 1], [1, 1, 1, 1], [1, 1], 1)
        y, _ = emu_ops.max_pool2d(x, [3, 3], [2, 2], [0, 0], [1, 1], [2, 2])
    finally:
        emulator.set_misalignment(0)
    assert_same(z, cpu.conv2d_normalizer(x, w, [1, 1], [1, 1, 1, 1], [1, 1], 1))
    assert_same(y, cpu.max_pool2d(x, [3, 3], [2, 2], [0, 0], [1, 1], [2, 2])[0])


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounding_is_that_of_the_cpu(precision):
    emulator = emu_build.emulator()
    for shape in ((3, 5, 7), (3, 5, 8)):  # one element a thread, and four
        x = tensor(shape, torch.float32)
        y = torch.empty_like(x)
        emulator.round(x.numel(), emu_ops.memory(x), getattr(emulator.Precision, precision), emu_ops.memory(y))
        assert torch.equal(y, ebp_cuda.ops.rounded(x, precision)) and not torch.equal(y, x)


def test_launchers_refuse_empty_tensors_by_name():
    emu, floats, codes = emu_build.emulator(), np.empty(0, np.float32), np.empty(0, np.uint8)
    none = emu.Distances(0, 0)
    rows, axis = emu.Rows(0, 1, 1, 1, none, none), emu.Axis(4, 4, 1, 1, 0, 1)
    pool, strides = emu.Pool2d(0, 1, 1, axis, axis, 1), emu.Strides(0, 0, 0, 0)
    conv = emu.Conv2d(0, 4, 4, 1, axis, axis, strides, strides)
    calls = {
        "share: r": (emu.f32.share, rows, floats, floats, floats),
        "gate: y": (emu.f32.gate, rows, floats, floats, floats),
        "round: y": (emu.round, 0, floats, emu.Precision.tf32, floats),
        "add: the sum": (emu.f32.add, 0, floats, floats, floats),
        "max_winner: winner": (emu.f32.max_winner, 0, [floats, floats], codes),
        "max_pool: y": (emu.f32.max_pool, pool, floats, floats, codes, False),
        "max_route: below": (emu.f32.max_route, pool, floats, codes, False, floats),
        "window_sum: y": (emu.f32.window_sum, pool, emu.Divisor.none, floats, floats),
        "window_spread: below": (emu.f32.window_spread, pool, floats, floats),
        "lrn: y": (emu.f32.lrn, emu.Lrn(0, 4, 4, 5, 0.1, 0.75, 1.0), floats, floats),
        "conv_normalizer: z": (emu.f32.conv_normalizer, conv, floats, floats, floats),
        "conv_sweep: below": (emu.f32.conv_sweep, conv, floats, floats, floats),
    }
    args = {"source": floats, "weight": floats, "to": floats}
    schedule = emu.Schedule(emu.Method.simt, emu.Loads.single, False, 1)
    calls["contraction: the result"] = (emu.contraction, emu.contraction_up(conv, strides), schedule, args)
    for empty, (launch, *arguments) in calls.items():
        with pytest.raises(emu.Fault, match=f"{empty} is empty"):
            launch(*arguments)


def kernels_in(source):
    """Names of the kernel instances that the build of a .cu file holds."""
    built = emu_build.FOLDER / (source.replace("/", "_") + ".o")
    names = subprocess.run(["nm", "--demangle", built], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"ebp::(\w+_kernel(?:<.*?>)?)\(", names))


def test_every_instance_of_the_naive_kernels_runs():
    """Whatever the objects of the shipped launchers hold has been launched, by these small calls alone."""
    emulator = emu_build.emulator()
    for dtype in DTYPES:
        x = tensor((1, 3, 4, 4), dtype)
        w = tensor((2, 3, 3, 3), dtype)
        emu_ops.share(x, x)
        emu_ops.gate(x, x)
        emu_ops.max_winner([x, x])
        for count in (x.numel(), x.numel() - 1):
            total = torch.zeros_like(x)
            emu_ops.launchers(x).add(count, *(emu_ops.memory(t)[:count] for t in (x, x.square(), total)))
            assert torch.equal(total.flatten()[:count], (x + x.square()).flatten()[:count])
        for side in (3, 16):
            y, winner = emu_ops.max_pool2d(x, [side, side], [1, 1], [side // 2] * 2, [1, 1], [2, 2])
            emu_ops.max_pool2d_route(y, winner, [4, 4], [side, side], [1, 1], [side // 2] * 2, [1, 1])
        emu_ops.window_spread(emu_ops.window_sum(x, [3, 3], [1, 1], [0, 0], [2, 2]), [4, 4], [3, 3], [1, 1], [0, 0])
        for beta in (0.75, 0.5, 1.0, 0.6):
            emu_ops.lrn(x, 3, 0.1, beta, 1.0)
        z = emu_ops.conv2d_normalizer(x, w, [1, 1], [0, 0, 0, 0], [1, 1], 1)
        emu_ops.conv2d_sweep(z, w, [4, 4], [1, 1], [0, 0, 0, 0], [1, 1], 1)
    for precision in ("tf32", "bf16"):
        test_rounding_is_that_of_the_cpu(precision)
    for source in ("cuda/conv.cu", "cuda/pool.cu", "cuda/lrn.cu", "cuda/pointwise.cu"):
        shipped = {kernel for kernel in kernels_in(source) if "quads" not in kernel}
        assert shipped, f"no kernel found in {source}"
        assert shipped <= emulator.launched(), f"never launched: {shipped - emulator.launched()}"
