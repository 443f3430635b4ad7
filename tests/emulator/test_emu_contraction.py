"""The tiled contraction, in the emulator, against convolutions in float64: every instance, ragged sizes, all orders."""

from __future__ import annotations

import random

import pytest
import torch
from support import emu_build
from support.emu_contraction import contract, downward, excite, schedules, upward
from support.emu_ops import in_all_orders
from test_emu_naive import kernels_in

from ebp_cuda import ops
from ebp_cuda.errors import ShapeError

pytestmark = pytest.mark.emu

CHANNELS = (1, 3, 4, 7, 8, 17, 33)
LAYOUTS = (torch.channels_last, torch.contiguous_format)


def whole(shape, layout=torch.channels_last, least=-3):
    """Whole numbers, some of them 0, of which every sum is exact in fp32."""
    return torch.randint(least, 4, shape).float().contiguous(memory_format=layout)


def up_in_double(x, w, geometry):
    stride, padding, dilation, groups = geometry
    top, left, bottom, right = padding
    padded = torch.nn.functional.pad(x.double(), (left, right, top, bottom))
    return torch.conv2d(padded, w.double(), None, stride, 0, dilation, groups)


def down_in_double(r, w, shape, geometry):
    """The adjoint, by autograd."""
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(up_in_double(x, w, geometry), x, r.double())[0]


def cases(count):
    """Channels, kernels, strides, uneven pads, dilations and groups; every other case can be read in quads."""
    chance = random.Random(11)
    found = []
    for i in range(count):
        kernel = chance.choice([(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (3, 2)])
        groups = chance.choice((1, 1, 1, 2))
        most = 4 * max(1, 40 // (4 * kernel[0] * kernel[1] * groups))  # keeps the terms few, and the emulator quick
        per_group = chance.choice((4, most)) if i % 2 else min(most, chance.choice(CHANNELS))
        outs = chance.choice((4, 8, 68)) if i % 2 else chance.choice(CHANNELS)
        if i % 5 == 4:
            groups, per_group, outs = chance.choice(CHANNELS[1:]), 1, 1
        stride = [chance.choice((1, 1, 2, 3)) for _ in range(2)]
        dilation = [chance.choice((1, 1, 2, 3)) if max(kernel) < 5 else 1 for _ in range(2)]
        padding = [chance.randint(0, kernel[a % 2] // 2 * dilation[a % 2]) for a in range(4)]
        size = [dilation[a] * (kernel[a] - 1) + 1 + chance.randint(0, 3) for a in range(2)]
        shape, weights = (1 + i % 3, groups * per_group, *size), (groups * outs, per_group, *kernel)
        name = f"{i}-{shape}-{weights}-s{stride}-p{padding}-d{dilation}-g{groups}"
        found.append(pytest.param(shape, weights, (stride, padding, dilation, groups), LAYOUTS[i % 10 == 0], id=name))
    return found


@pytest.mark.parametrize(("shape", "weights", "geometry", "layout"), cases(16))
def test_up_and_down_are_exact_on_whole_numbers(shape, weights, geometry, layout):
    x, w = whole(shape, layout), whole(weights, layout)
    problem, to = upward(x, w, geometry)
    wanted = up_in_double(x, w, geometry).float()
    for schedule in schedules(problem, 1):
        assert torch.equal(contract(problem, to, schedule, x, w), wanted)

    r, gate = whole((2 * shape[0], *wanted.shape[1:]), layout), whole(shape, layout)
    problem, to = downward(r, w, shape[2:], geometry)
    wanted, addend = down_in_double(r, w, to.shape, geometry).float(), whole(to.shape, layout)
    for schedule in schedules(problem, 1):
        assert torch.equal(contract(problem, to, schedule, r, w), wanted)
        gated = contract(problem, to, schedule, r, w, gate)
        assert torch.equal(gated, wanted * gate.repeat_interleave(2, 0))
        summed = contract(problem, to, schedule, r, w, gate, addend)
        assert torch.equal(summed, (wanted + addend) * gate.repeat_interleave(2, 0))


@pytest.mark.parametrize(("relu", "gates", "biased"), [(True, True, True), (False, False, True), (True, False, False)])
@pytest.mark.parametrize(("shape", "weights", "geometry", "layout"), cases(5))
def test_excitation(shape, weights, geometry, layout, relu, gates, biased):
    """Two sums from one reading of x: the layer's output, and its normalizer or the gate."""
    x, w = whole(shape, layout, 0), whole(weights, layout)
    bias = torch.arange(-2, weights[0] - 2).float() if biased else None
    y, z = (up_in_double(x, v, geometry).float() for v in (w, w.clamp(min=0)))
    y = y if bias is None else y + bias.view(-1, 1, 1)
    y = y.clamp(min=0) if relu else y
    side = torch.where(z == 0, 0, y / z) if gates else z
    problem, to = upward(x, w, geometry)
    for schedule in schedules(problem, 2):
        got = excite(problem, to, schedule, (x, w, w.clamp(min=0), bias), relu, gates)
        assert torch.equal(got[0], y) and torch.equal(got[1], side)


@pytest.mark.parametrize("splits", [1, 3])
def test_no_order_of_threads_changes_a_bit(splits):
    x, w, bias = torch.rand(1, 8, 4, 4), torch.rand(8, 8, 3, 3), torch.rand(8)
    x, w = (t.contiguous(memory_format=LAYOUTS[0]) for t in (x, w))
    geometry = ((2, 1), (1, 1, 1, 1), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    for schedule in schedules(problem, 2, [splits]):
        z, _ = in_all_orders(lambda s=schedule: excite(problem, to, s, (x, w, w, bias), True, True))
    problem, to = downward(z, w, (4, 4), geometry)
    for schedule in schedules(problem, 1, [splits]):
        in_all_orders(lambda s=schedule: contract(problem, to, s, z, w, x))


@pytest.mark.parametrize("large", [False, True])
def test_more_than_one_tile_each_way(large):
    """Rows, columns and terms beyond a tile of 128 x 64, and rounding like that of any fp32 sum."""
    emu = emu_build.emulator()
    x, w = torch.rand(2, 12, 9, 8).contiguous(memory_format=LAYOUTS[0]), torch.rand(68, 12, 3, 3)
    w = w.contiguous(memory_format=LAYOUTS[0])
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    eps = torch.finfo(torch.float32).eps
    problem, to = upward(x, w, geometry)
    schedule = emu.Schedule(emu.Method.simt, emu.Loads.along_terms, large, 2)
    z = contract(problem, to, schedule, x, w)
    torch.testing.assert_close(z.double(), up_in_double(x, w, geometry), rtol=12 * 9 * eps, atol=0)
    problem, to = downward(z, w, (9, 8), geometry)
    schedule = emu.Schedule(emu.Method.simt, emu.Loads.along_columns, large, 2)
    below = contract(problem, to, schedule, z, w)
    torch.testing.assert_close(below.double(), down_in_double(z, w, x.shape, geometry), rtol=68 * 9 * eps, atol=0)


def test_fully_connected_is_a_contraction_of_one_pixel():
    x, w = whole((3, 100, 1, 1)), whole((68, 100, 1, 1))
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    for schedule in schedules(problem, 1):
        assert torch.equal(contract(problem, to, schedule, x, w).flatten(1), x.flatten(1) @ w.flatten(1).T)


def test_slices_of_channels():
    """Source, gate and target may be channels of a wider tensor, as in and below a concatenation."""
    emu = emu_build.emulator()
    x, w = whole((2, 12, 5, 6))[:, 4:], whole((8, 8, 3, 3))
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    memory = x.as_strided((2 * 12 * 5 * 6 - 4,), (1,), 4).numpy()
    schedule = emu.schedule_of(problem, 1, emu.Precision.fp32, False, 90)
    assert schedule.loads == emu.Loads.along_terms
    weights, result = (t.permute(0, 2, 3, 1).numpy() for t in (w, to))
    emu.contraction(problem, schedule, {"source": memory, "weight": weights, "to": result})
    assert torch.equal(to, up_in_double(x, w, geometry).float())


def test_a_schedule_that_cannot_be_is_refused():
    emu = emu_build.emulator()
    x, w = whole((1, 3, 5, 5)), whole((4, 3, 3, 3))
    problem, to = upward(x, w, ((1, 1), (0, 0, 0, 0), (1, 1), 1))
    quads = emu.Schedule(emu.Method.simt, emu.Loads.along_terms, False, 1)
    with pytest.raises(emu.Fault, match="no multiple of 4"):
        contract(problem, to, quads, x, w)
    with pytest.raises(emu.Fault, match="more than one channel"):
        contract(problem, to, emu.Schedule(emu.Method.depthwise, emu.Loads.single, False, 1), x, w)
    emu.set_misalignment(4)
    try:
        x, w = whole((1, 4, 5, 5)), whole((4, 4, 3, 3))
        problem, to = upward(x, w, ((1, 1), (0, 0, 0, 0), (1, 1), 1))
        with pytest.raises(emu.Fault, match="16 bytes"):
            contract(problem, to, quads, x, w)
    finally:
        emu.set_misalignment(0)


@pytest.mark.parametrize(
    ("channels", "outs", "side", "batch", "method", "loads", "large", "split"),
    [
        (256, 256, 56, 4, "simt", "along_terms", True, False),  # tiles for every processor
        (512, 512, 14, 1, "simt", "along_terms", False, True),  # few: the terms are split
        (3, 64, 32, 1, "simt", "single", False, False),
        (25088, 4096, 1, 1, "simt", "along_terms", False, True),
    ],
)
def test_what_is_chosen(channels, outs, side, batch, method, loads, large, split):
    emu = emu_build.emulator()
    k = 3 if side > 1 else 1
    axis = emu.Axis(side, side, k, 1, k // 2, 1)
    x, z = (emu.Strides(c * side * side, 1, c * side, c) for c in (channels, outs))
    w = emu.Strides(k * k * channels, 1, k * channels, channels)
    problem = emu.contraction_up(emu.Conv2d(batch, channels, outs, 1, axis, axis, x, z), w)
    chosen = emu.schedule_of(problem, 1, emu.Precision.fp32, False, 90)
    assert (chosen.method, chosen.loads) == (getattr(emu.Method, method), getattr(emu.Loads, loads))
    assert (chosen.large, chosen.splits > 1) == (large, split)


def test_every_instance_runs():
    """Whatever the objects of the shipped launchers hold has been launched, by these small calls alone."""
    emu = emu_build.emulator()
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    for channels, groups in ((8, 1), (3, 1), (3, 3)):
        x, w = whole((1, channels, 4, 4)), whole((channels, channels // groups, 3, 3))
        up, down = upward(x, w, (*geometry[:3], groups)), downward(x, w, (4, 4), (*geometry[:3], groups))
        for problem, to in (up, down):
            for schedule in schedules(problem, 1, [2]):
                contract(problem, to, schedule, x, w)
        for schedule in schedules(up[0], 2, [2]):
            excite(*up, schedule, (x, w, w, None), True, True)
    shipped = kernels_in("cuda/contraction.cu")
    assert len(shipped) == 13 and shipped <= emu.launched()


class TestOps:
    """The ops as CUDA tensors meet them: their checks, their choice of a kernel, and the kernel."""

    GEOMETRY = ([2, 1], [1, 0, 1, 2], [1, 1], 1)

    def operands(self, dtype=torch.float32, layout=LAYOUTS[0]):
        emu_build.emulator()
        x, w = whole((2, 8, 6, 5), layout).to(dtype), whole((4, 8, 3, 3), layout).to(dtype)
        z = up_in_double(x, w, self.GEOMETRY)
        return x, w, whole((6, *z.shape[1:]), layout).to(dtype), z.to(dtype)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_normalizer_and_gated_sweep(self, layout, dtype):
        x, w, r, z = self.operands(dtype, layout)
        assert torch.equal(torch.ops.ebp_emulated.conv2d_normalizer(x, w, *self.GEOMETRY), z)
        below = down_in_double(r, w, (6, *x.shape[1:]), self.GEOMETRY).to(dtype)
        args = (r, w, x.shape[2:], *self.GEOMETRY)
        assert torch.equal(torch.ops.ebp_emulated.conv2d_sweep(*args), below)
        wanted = below * x.repeat_interleave(3, 0)
        assert torch.equal(torch.ops.ebp_emulated.conv2d_sweep(*args, x), wanted)
        assert torch.equal(ops.conv2d_sweep(*args, gate=x), wanted)  # and the CPU says the same

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(("relu", "as_gate", "biased"), [(True, True, True), (False, False, False)])
    def test_excitation(self, layout, relu, as_gate, biased):
        x, w, _, _ = self.operands(layout=layout)
        args = (x, w, w.clamp(min=0), torch.arange(-2.0, 2.0) if biased else None, *self.GEOMETRY)
        wanted = ops.conv2d_excitation(*args, relu=relu, as_gate=as_gate)
        for got, value in zip(torch.ops.ebp_emulated.conv2d_excitation(*args, relu, as_gate), wanted, strict=True):
            assert torch.equal(got, value)

    def test_gate_may_be_a_slice_of_channels(self):
        x, w, r, _ = self.operands()
        wide = torch.cat([x, x], 1).contiguous(memory_format=LAYOUTS[0])
        args = (r, w, x.shape[2:], *self.GEOMETRY)
        wanted = ops.conv2d_sweep(*args, gate=wide[:, 8:])
        assert torch.equal(torch.ops.ebp_emulated.conv2d_sweep(*args, wide[:, 8:]), wanted)

    def test_refusals(self):
        x, w, r, _ = self.operands()
        args = (r, w, x.shape[2:], *self.GEOMETRY)
        with pytest.raises(RuntimeError, match="precision must be fp32, tf32 or bf16, got 'fp16'"):
            torch.ops.ebp_emulated.conv2d_sweep(*args, None, "fp16")
        with pytest.raises(RuntimeError, match="'tf32' is one of float32 tensors"):
            torch.ops.ebp_emulated.conv2d_normalizer(x.double(), w.double(), *self.GEOMETRY, "tf32")
        with pytest.raises(RuntimeError, match=r"bias must be float32 \[4\]"):
            torch.ops.ebp_emulated.conv2d_excitation(x, w, w, torch.ones(3), *self.GEOMETRY, True, True)
        with pytest.raises(RuntimeError, match="x must be float32 on CUDA"):
            torch.ops.ebp_emulated.conv2d_excitation(*(t.double() for t in (x, w, w)), None, *self.GEOMETRY, True, True)
        with pytest.raises(ShapeError, match=r"bias is float32 \[3\]"):
            ops.conv2d_excitation(x, w, w, torch.ones(3), *self.GEOMETRY, relu=True, as_gate=True)
        with pytest.raises(RuntimeError, match="only the first axis may differ"):
            torch.ops.ebp_emulated.conv2d_sweep(*args, x[:, :4])
        with pytest.raises(ShapeError, match="only the first axis may differ"):
            ops.conv2d_sweep(*args, gate=x[:, :4])
