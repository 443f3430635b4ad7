"""The emulator's model of the tensor cores: number formats to the bit, and who holds which element."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.emu_build import emulator

pytestmark = pytest.mark.emu

RNG = np.random.default_rng(5)
SPECIAL = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x00000001, 0x007FFFFF, 0x00800000]


def patterns():
    """Bits of numbers of every exponent, with the halves and their neighbors that decide how a rounding works."""
    free = RNG.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    edges = [
        (free[:20_000] & ~np.uint32(2**cut - 1)) + np.uint32(2 ** (cut - 1) + step)
        for cut in (13, 16)
        for step in (-1, 0, 1)
    ]
    return np.concatenate([free, *edges, np.array(SPECIAL, np.uint32)])


def values(bits):
    return bits.view(np.float32).astype(np.float64)


def nearest_tf32(bits):
    """To 11 significant bits (fewer for subnormals), halves away from zero: float64 arithmetic, no bits."""
    v = values(bits)
    with np.errstate(all="ignore"):
        step = np.exp2(np.maximum(np.floor(np.log2(np.abs(v))), -126) - 10)
        rounded = np.trunc(np.abs(v) / step + 0.5) * step
        rounded = np.where(np.isinf(v), np.inf, np.where(v == 0, 0, rounded))
        return np.copysign(rounded, v).astype(np.float32)


def finite(bits):
    return bits[(bits & 0x7F800000) != 0x7F800000]


def test_tf32_rounds_to_nearest_and_halves_away_from_zero():
    bits = finite(patterns())
    got = emulator().tf32_nearest(bits).view(np.float32)
    np.testing.assert_array_equal(got.view(np.uint32), nearest_tf32(bits).view(np.uint32))
    assert (emulator().tf32_nearest(bits) & 0x1FFF == 0).all()


def test_tf32_truncation_drops_bits():
    bits = finite(patterns())
    got = values(emulator().tf32_truncated(bits))
    error = np.abs(values(bits)) - np.abs(got)
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(values(bits)), 1e-300))), -126)
    assert (error >= 0).all()
    assert (error < np.exp2(exponent - 10)).all()
    assert emulator().tf32_truncated(np.uint32(0x3F801FFF)) == 0x3F800000
    assert emulator().tf32_nearest(np.uint32(0x3F801FFF)) == 0x3F802000


def bf16_bits(v):
    """torch's conversion to bf16, as uint16."""
    return torch.from_numpy(v).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def test_bf16_rounds_to_nearest_even():
    bits = finite(patterns())
    np.testing.assert_array_equal(emulator().bf16_nearest(bits), bf16_bits(bits.view(np.float32)))


@pytest.mark.parametrize("name", ["tf32_nearest", "bf16_nearest"])
def test_infinities_stay_and_nan_is_nan(name):
    shift = 16 if name == "bf16_nearest" else 0
    rounded = getattr(emulator(), name)
    for bits in (0x7F800000, 0xFF800000):
        assert rounded(np.uint32(bits)) << shift == bits
    for bits in (0x7F800001, 0x7FC00000, 0xFFFFFFFF):
        assert np.isnan(np.array(rounded(np.uint32(bits)) << shift, np.uint32).view(np.float32))


# Where lane t, register element v of a fragment lies in its matrix, as the sum of strides times digits of t and v. The
# numbers are those of CUTLASS's MMA traits for sm_80 (an element's place is row + 16 * column in A and D,
# column + 8 * row in B).
FRAGMENTS = {
    "tf32": {"a": ((4, 16), (8, 1), (2, 8), (2, 64)), "b": ((4, 8), (8, 1), (2, 32))},
    "bf16": {"a": ((4, 32), (8, 1), (2, 16), (2, 8), (2, 128)), "b": ((4, 16), (8, 1), (2, 8), (2, 64))},
}
SUM = ((4, 32), (8, 1), (2, 16), (2, 8))


def places(layout):
    """[32, elements per lane] of flat positions; the first digit of a lane or element is the fastest."""
    digits = np.meshgrid(*[np.arange(size) for size, _ in layout], indexing="ij")
    flat = sum(d * stride for d, (_, stride) in zip(digits, layout, strict=True))
    return flat.transpose(1, 0, *range(len(layout) - 1, 1, -1)).reshape(32, -1)


def fragment(matrix, layout):
    return matrix.ravel(order="F")[places(layout)]


def operands(kind, magnitude):
    depth = 8 if kind == "tf32" else 16
    a, b = (RNG.uniform(-magnitude, magnitude, shape).astype(np.float32) for shape in ((16, depth), (depth, 8)))
    if kind == "tf32":
        return tuple(emulator().tf32_nearest(m.view(np.uint32)).view(np.float32) for m in (a, b))
    return tuple((bf16_bits(m).astype(np.uint32) << 16).view(np.float32) for m in (a, b))


def multiply(kind, a, b, c):
    """a [16, k] b [k, 8] + c through the registers of 32 lanes."""
    left, right = fragment(a, FRAGMENTS[kind]["a"]), fragment(b.T, FRAGMENTS[kind]["b"])
    if kind == "bf16":
        left, right = bf16_bits(left), bf16_bits(right)
    left, right = (np.ascontiguousarray(m).view(np.uint32) for m in (left, right))
    d = np.empty((32, 4), np.float32)
    getattr(emulator().specimens, f"mma_{kind}")(left, right, np.ascontiguousarray(fragment(c, SUM)), d)
    whole = np.empty(128, np.float32)
    whole[places(SUM)] = d
    return whole.reshape(16, 8, order="F")


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_matrix_product_of_whole_numbers_is_exact(kind):
    a, b = (np.round(m) for m in operands(kind, 30))
    c = RNG.integers(-100, 100, (16, 8)).astype(np.float32)
    np.testing.assert_array_equal(multiply(kind, a, b, c), a @ b + c)


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_matrix_product_loses_no_more_than_a_float_sum(kind):
    """Cut once per group of products at 2**-24 of the largest term: below 1e-6 of the sum of magnitudes."""
    a, b = operands(kind, 1)
    c = RNG.standard_normal((16, 8)).astype(np.float32)
    exact = a.astype(np.float64) @ b + c
    error = np.abs(multiply(kind, a, b, c) - exact)
    scale = np.abs(a).astype(np.float64) @ np.abs(b) + np.abs(c)
    assert (error <= 1e-6 * scale).all()
    assert error.max() > 0


def test_the_accumulator_is_cut_and_not_rounded():
    """1 + 3/4 ulp stays 1: tensor cores round towards zero."""
    a, b = np.zeros((16, 8), np.float32), np.zeros((8, 8), np.float32)
    a[0, 0], b[0, 0] = 0.75 * 2.0**-23, 1
    assert multiply("tf32", a, b, np.ones((16, 8), np.float32))[0, 0] == 1


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(count, transposed):
    """Lane t gets elements 2 (t % 4) and 2 (t % 4) + 1 of row t / 4 (of column t / 4 when transposed)."""
    x = RNG.integers(0, 2**16, (count, 8, 8)).astype(np.uint16)
    y = np.empty((32, count), np.uint32)
    emulator().specimens.ldmatrix(x, y, count, transposed)
    given = x.transpose(0, 2, 1) if transposed else x
    wanted = np.ascontiguousarray(given).view(np.uint32).reshape(count, 32).T
    np.testing.assert_array_equal(y, wanted)
