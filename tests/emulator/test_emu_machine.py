"""The emulator itself: right kernels give the known result in every order, wrong ones are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from support.emu_build import emulator

pytestmark = pytest.mark.emu

RNG = np.random.default_rng(5)
ORDERS = ("forward", "reversed", "shuffled")


@pytest.fixture(params=ORDERS)
def emu(request):
    module = emulator()
    module.set_order(getattr(module.Order, request.param), 11)
    yield module
    module.set_order(module.Order.forward)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 31, 32, 96, 1024])
def test_barriers_and_shared_memory(emu, threads):
    x, y = floats(3, threads), floats(3, threads)
    emu.specimens.reverse(x, y, 3, threads)
    np.testing.assert_array_equal(y, x[:, ::-1])


@pytest.mark.parametrize("sizes", [(1, 1, 1), (16, 16, 16), (33, 17, 50), (7, 40, 3)])
def test_tiles(emu, sizes):
    m, n, k = sizes
    a, b = (RNG.integers(-8, 8, shape).astype(np.float32) for shape in ((m, k), (k, n)))
    c = floats(m, n)
    emu.specimens.matmul(a, b, c, m, n, k)
    np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("threads", [32, 64])
def test_shuffles(emu, threads):
    x = RNG.integers(-8, 8, threads).astype(np.float32)
    warps, got = x.reshape(-1, 32), {}
    for kind, name in enumerate(("xor", "down", "up", "broadcast")):
        got[name] = np.empty_like(x)
        emu.specimens.warp_sums(x, got[name], threads, kind)
        got[name] = got[name].reshape(-1, 32)
    np.testing.assert_array_equal(got["xor"], np.repeat(warps.sum(1, keepdims=True), 32, 1))
    np.testing.assert_array_equal(got["down"][:, 0], warps.sum(1))
    np.testing.assert_array_equal(got["up"][:, 31], warps.sum(1))
    np.testing.assert_array_equal(got["broadcast"], np.repeat(warps[:, 5:6], 32, 1))


@pytest.mark.parametrize("threads", [32, 40])
@pytest.mark.parametrize("low", [-1.0, 0.0, 1.0])
def test_votes(emu, threads, low):
    x = RNG.uniform(low, low + 1, threads).astype(np.float32)
    x[7] = -low
    y = np.empty((threads, 3), np.uint32)
    emu.specimens.votes(x, y, threads)
    for first in range(0, threads, 32):
        holds = x[first : first + 32] > 0
        ballot = sum(1 << i for i, h in enumerate(holds) if h)
        assert (y[first : first + 32] == [ballot, holds.any(), holds.all()]).all()


def test_asynchronous_copies_land_at_their_wait(emu):
    x, y = floats(2, 128), floats(2, 128)
    emu.specimens.async_copy(x, y, 64, 0)
    landed = x.copy().reshape(2, 32, 4)
    landed[:, 2::3] = 0
    np.testing.assert_array_equal(y, landed.reshape(2, 128)[:, ::-1])
    for step, complaint in ((1, "has not been waited for"), (2, "written"), (3, "has not been waited for")):
        with pytest.raises(emu.Fault, match=f"async_copy_kernel: .*{complaint}"):
            emu.specimens.async_copy(x, y, 64, step)


MISTAKES = {
    "barrier_after_an_end": r"40 at __syncthreads \(mistakes.cu:\d+\).*24 at the end of the kernel",
    "two_barriers": r"8 at __syncthreads .*56 at __syncthreads",
    "barrier_and_warp": r"8 at __shfl_xor_sync .*32 at __syncthreads",
    "read_too_early": r"nobody has written it|no barrier lies between",
    "overwrite_too_early": r"no barrier lies between",
    "warp_order_across_warps": r"nobody has written it|no barrier lies between",
    "unwritten_shared": r"reads 4 bytes at byte \d+ of shared memory \(256 bytes\): nobody has written it",
    "shared_out_of_bounds": r"writes 4 bytes at byte 256 of shared memory \(256 bytes\): out of bounds",
    "shared_too_small": r"wants 512 bytes of shared memory",
    "read_out_of_bounds": r"thread \(63, 0, 0\): reads 4 bytes at byte 256 of array 0 \(256 bytes\): out of bounds",
    "read_before": r"thread \(0, 0, 0\): reads 4 bytes at byte -4 of array 0",
    "read_far_away": r"reads 4 bytes far from any buffer",
    "write_out_of_bounds": r"writes 4 bytes at byte \d+ of array 1 \(256 bytes\): out of bounds",
    "write_an_input": r"writes .* of array 0 .*: it is an input",
    "read_unwritten": r"reads .* of array 1 .*: nobody has written it",
    "two_writers": r"writes .* of array 1 .*: another thread wrote it",
    "wide_access_out_of_bounds": r"reads 8 bytes at byte 256 of array 0",
    "misaligned": r"misaligned",
    "absent_lane": r"shuffles from lane \d+, which takes no part",
    "mask_without_itself": r"with a mask that leaves it out",
    "two_warp_calls": r"where other lanes of its mask wait at __shfl_xor_sync",
    "unrounded_operand": r"an operand that was not rounded to tf32",
    "misaligned_row": r"ldmatrix: a row is not aligned to 16 bytes",
    "local_array": r"an index out of its array's bounds",
    "shift": r"a shift by too much",
    "overflow": r"a multiplication that overflows",
    "division": r"a division by zero",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(emu, name):
    x, y = np.linspace(0.1, 1, 64, dtype=np.float32), floats(64)
    with pytest.raises(emu.Fault, match=MISTAKES[name]) as caught:
        emu.specimens.mistake(name, x, y)
    assert str(caught.value).startswith("mistake_kernel: block (0, 0, 0)")
    emu.specimens.reverse(x, y, 1, 64)  # and the emulator still works
    np.testing.assert_array_equal(y, x[::-1])


def test_launches_that_a_gpu_would_refuse():
    emu, x, y = emulator(), floats(4096), floats(4096)
    with pytest.raises(emu.Fault, match="reverse_kernel: a block of 2048 threads"):
        emu.specimens.reverse(x, y, 1, 2048)
    with pytest.raises(emu.Fault, match="mistake_kernel: 232449 bytes of shared memory, the limit is 232448"):
        emu.specimens.mistake("too_much_shared", x[:64], y[:64])
    with pytest.raises(emu.Fault, match="an empty grid"):
        emu.specimens.reverse(x, y, 0, 32)
    with pytest.raises(emu.Fault, match=r"votes_kernel: .*out of bounds"):
        emu.specimens.votes(x, np.empty(4, np.uint32), 2)  # writes 6 numbers


def test_arguments_of_a_wrong_kind():
    emu, x = emulator(), floats(4, 4)
    with pytest.raises(TypeError, match="float64, wanted float32"):
        emu.specimens.reverse(x.astype(np.float64), x, 1, 16)
    with pytest.raises(TypeError, match="array 0 is not C-contiguous"):
        emu.specimens.reverse(x.T, x, 1, 16)
    with pytest.raises(TypeError, match="reverse takes 4 arguments, got 2"):
        emu.specimens.reverse(x, x)
