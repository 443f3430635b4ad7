"""The contraction on tensor cores, in the emulator, whose mma, ldmatrix and cp.async are modeled lane by lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from support.emu_build import emulator
from support.emu_contraction import contract, downward, upward
from support.emu_ops import in_all_orders
from test_emu_contraction import cases, down_in_double, up_in_double, whole
from test_emu_naive import kernels_in

from ebp_cuda.ops.rounding import rounded

pytestmark = pytest.mark.emu

UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-8}  # what a rounding changes at most, relatively
PRECISIONS = tuple(UNIT)
LAST = torch.channels_last
EPS = torch.finfo(torch.float32).eps


def on_tensor_cores(problem, precision, down, splits=1):
    """The schedule, or None where a contraction cannot be read in quads. Going down the source is split."""
    emu = emulator()
    wanted = getattr(emu.Precision, precision)
    chosen = emu.schedule_of(problem, 1, wanted, down, 90)
    if chosen.method != emu.Method.mma:
        return None
    return emu.Schedule(emu.Method.mma, chosen.loads, True, splits, wanted, down)


def values(shape, least=0.0):
    return torch.empty(shape).uniform_(least, 1).contiguous(memory_format=LAST)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("shape", "weights", "geometry", "layout"), [c for c in cases(16) if c.values[3] == LAST][::2])
def test_small_whole_numbers_are_exact(shape, weights, geometry, layout, precision):
    """Rows, columns and terms that fill no tile, strides, dilations, groups; what is at most 3 needs no rounding."""
    x, w = whole(shape), whole(weights)
    problem, to = upward(x, w, geometry)
    z = up_in_double(x, w, geometry).float()
    for splits in (1, 3):
        schedule = on_tensor_cores(problem, precision, False, splits)
        if schedule is not None:
            assert torch.equal(contract(problem, to, schedule, x, w), z)
    r, gate = whole((2 * shape[0], *z.shape[1:])), whole(shape)
    problem, to = downward(r, w, shape[2:], geometry)
    addend = whole(to.shape)
    wanted = (down_in_double(r, w, to.shape, geometry).float() + addend) * gate.repeat_interleave(2, 0)
    for splits in (1, 3):
        schedule = on_tensor_cores(problem, precision, True, splits)
        if schedule is not None:
            assert torch.equal(contract(problem, to, schedule, r, w, gate, addend), wanted)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiles_and_rounding(precision):
    """More than one tile each way: the sums are those of the rounded factors, and a split source is hardly rounded."""
    x, w = values((2, 20, 9, 8)), values((68, 20, 3, 3))
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    x_rounded, w_rounded = rounded(x, precision), rounded(w, precision)
    z = contract(problem, to, on_tensor_cores(problem, precision, False), x, w)
    wanted = up_in_double(x_rounded, w_rounded, geometry)
    torch.testing.assert_close(z.double(), wanted, rtol=20 * 9 * EPS, atol=0)

    r = values(z.shape, -1)
    problem, to = downward(r, w, (9, 8), geometry)
    wanted = down_in_double(r, w_rounded, x.shape, geometry)
    size = down_in_double(r.abs(), w_rounded, x.shape, geometry)
    schedule = on_tensor_cores(problem, precision, True)
    split, plain = (contract(problem, to, schedule, source, w) for source in (r, rounded(r, precision)))
    assert ((split - wanted).abs() / size).max().item() < 16 * EPS + UNIT[precision] ** 2
    assert (
        UNIT[precision] / 20 < ((plain - wanted).abs() / size).max().item() < UNIT[precision]
    )  # what the split is for


def test_a_forward_of_three_products_is_nearly_float32():
    """Signed factors in two summands each, with a bias: off by the product of the two rests, and what those lose."""
    x, w, bias = values((2, 20, 9, 8), -1), values((68, 20, 3, 3), -1), torch.rand(68) - 0.5
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    wanted = up_in_double(x, w, geometry) + bias[:, None, None]
    size = up_in_double(x.abs(), w.abs(), geometry) + bias.abs()[:, None, None]
    errors = {}
    for precision, splits in (("tf32x3", 1), ("tf32x3", 3), ("tf32", 1)):
        schedule = on_tensor_cores(problem, precision, False, splits)
        y = contract(problem, to, schedule, x, w, bias=bias)
        errors[precision, splits] = ((y - wanted).abs() / size).max().item()
    assert max(errors["tf32x3", 1], errors["tf32x3", 3]) < 16 * EPS + 3 * UNIT["tf32"] ** 2 < errors["tf32", 1] / 30


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_probability_is_lost(precision):
    """normalizer, sweep and last product use one and the same rounding: what goes in comes out."""
    x, w, p = rounded(values((1, 16, 6, 6)), precision), values((24, 16, 3, 3)), values((2, 24, 4, 4))
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    z = contract(problem, to, on_tensor_cores(problem, precision, False), x, w)
    r = p / z
    problem, to = downward(r, w, (6, 6), geometry)
    below = contract(problem, to, on_tensor_cores(problem, precision, True), r, w, x)
    lost = (below.double().sum((1, 2, 3)) / p.double().sum((1, 2, 3)) - 1).abs().max().item()
    assert lost < 8 * EPS + UNIT[precision] ** 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_order_of_threads_changes_a_bit(precision):
    """More tiles of terms than stages, so that every stage is used twice."""
    x, w = values((1, 16, 4, 4)), values((8, 16, 3, 3))
    geometry = ((2, 1), (1, 1, 1, 1), (1, 1), 1)
    problem, to = upward(x, w, geometry)
    for splits in (1, 2):
        z = in_all_orders(lambda n=splits: contract(problem, to, on_tensor_cores(problem, precision, False, n), x, w))
    problem, to = downward(z, w, (4, 4), geometry)
    in_all_orders(lambda: contract(problem, to, on_tensor_cores(problem, precision, True), z, w, x))


def test_rounding_is_that_of_the_kernels():
    """... of the emulator's cvt, that is, whose ties and carries are tested by themselves."""
    x = torch.empty(1000).uniform_(-1, 1)
    bits = x.numpy().view(np.uint32)
    assert (rounded(x, "tf32").numpy().view(np.uint32) == emulator().tf32_nearest(bits)).all()
    assert (rounded(x, "bf16").numpy().view(np.uint32) >> 16 == emulator().bf16_nearest(bits)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_by_itself(precision):
    """Ties, carries into the exponent, and what is no number, as the kernel for it rounds."""
    emulator()
    edges = torch.tensor([0.0, -0.0, 1 + 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 2 - 2.0**-12, torch.inf, 1e-39])
    x = torch.cat([edges, -edges, torch.randn(300)])
    assert torch.equal(torch.ops.ebp_emulated.rounded(x, precision), rounded(x, precision))
    nothing = torch.tensor([0x7FFFFFFF, 0x7FC00000, -1], dtype=torch.int32).view(torch.float32)
    assert torch.ops.ebp_emulated.rounded(nothing, precision).isnan().all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (8, 8)])
def test_a_kernel_that_does_not_round_gets_rounded_factors(channels, groups, precision):
    """Channels that are no quads, and depthwise ones."""
    emulated = torch.ops.ebp_emulated
    x, w = values((1, channels, 5, 5)), values((channels, channels // groups, 3, 3))
    geometry = ([1, 1], [1, 1, 1, 1], [1, 1], groups)
    rounds = rounded(x, precision), rounded(w, precision)
    z = emulated.conv2d_normalizer(x, w, *geometry, precision)
    assert torch.equal(z, emulated.conv2d_normalizer(*rounds, *geometry))
    t = emulated.conv2d_sweep(z, w, [5, 5], *geometry, x, precision)
    assert torch.equal(t, emulated.conv2d_sweep(z, rounds[1], [5, 5], *geometry, x))


def test_every_instance_runs():
    """Whatever the objects of the shipped launchers hold has been launched, by these small calls alone."""
    emu = emulator()
    x, w = whole((1, 8, 4, 4)), whole((8, 8, 3, 3))
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    ways = (upward(x, w, geometry), downward(x, w, (4, 4), geometry))
    for precision, ((problem, to), down) in itertools.product(PRECISIONS, zip(ways, (False, True), strict=True)):
        contract(problem, to, on_tensor_cores(problem, precision, down), x, w)
    problem, to = ways[0]
    contract(problem, to, on_tensor_cores(problem, "tf32x3", False), x, w)
    shipped = kernels_in("cuda/contraction_mma.cu")
    assert len(shipped) == 5 and shipped <= emu.launched()


def test_who_is_refused():
    emu = emulator()
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    x, w = whole((1, 8, 4, 4)), whole((4, 8, 3, 3))
    problem, to = upward(x, w, geometry)
    for precision, arch, method in [("tf32", 80, "mma"), ("tf32", 75, "simt"), ("fp32", 90, "simt")]:
        chosen = emu.schedule_of(problem, 1, getattr(emu.Precision, precision), False, arch)
        assert chosen.method == getattr(emu.Method, method)
    with pytest.raises(emu.Fault, match="fp32 was asked for"):
        contract(problem, to, emu.Schedule(emu.Method.mma, emu.Loads.along_terms, True, 1), x, w)
    x, w = whole((1, 6, 4, 4)), whole((4, 6, 3, 3))
    problem, to = upward(x, w, geometry)
    schedule = emu.Schedule(emu.Method.mma, emu.Loads.along_terms, True, 1, emu.Precision.tf32, False)
    with pytest.raises(emu.Fault, match="no multiple of 4"):
        contract(problem, to, schedule, x, w)
    x, w = whole((1, 8, 4, 4)), whole((4, 8, 3, 3))
    problem, to = upward(x, w, geometry)
    schedule = emu.Schedule(emu.Method.mma, emu.Loads.along_terms, True, 1, emu.Precision.tf32, True)
    with pytest.raises(emu.Fault, match="the weights lie the other way round"):
        contract(problem, to, schedule, x, w)


def test_the_ops_take_the_precision():
    emulator()
    x, w = values((1, 8, 5, 5)), values((8, 8, 3, 3))
    geometry = ([1, 1], [1, 1, 1, 1], [1, 1], 1)
    exact = torch.ops.ebp_emulated.conv2d_normalizer(x, w, *geometry)
    for precision, unit in UNIT.items():
        z = torch.ops.ebp_emulated.conv2d_normalizer(x, w, *geometry, precision)
        t = torch.ops.ebp_emulated.conv2d_sweep(z, w, [5, 5], *geometry, x, precision)
        plain = torch.ops.ebp_emulated.conv2d_sweep(z, w, [5, 5], *geometry, x)
        for a, b in ((z, exact), (t, plain)):
            error = ((a - b).abs() / b).max().item()
            assert unit / 50 < error < 2 * unit
