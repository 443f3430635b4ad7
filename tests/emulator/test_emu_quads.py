"""CUDA kernels of four elements a thread: the bits of those of one, and of the CPU; in all orders of threads."""

from __future__ import annotations

import pytest
import torch
from support import emu_build, emu_ops
from test_emu_naive import assert_same, cpu, kernels_in, tensor
from test_emu_naive import test_rounding_is_that_of_the_cpu as check_rounding

pytestmark = pytest.mark.emu

WINDOWS = [
    ((13, 11), (3, 3), (2, 2), (0, 0), (6, 5)),
    ((7, 9), (3, 3), (1, 1), (1, 1), (7, 9)),
    ((8, 6), (2, 2), (2, 2), (0, 0), (4, 3)),
    ((9, 8), (3, 2), (2, 3), (1, 0), (6, 4)),  # one output row lies wholly outside
    ((5, 5), (5, 5), (1, 1), (0, 0), (1, 1)),
]


def without_quads(call):
    """The result of a call whose tensors lie at no multiple of 16 bytes: by the kernels of one element a thread."""
    emu = emu_build.emulator()
    emu.set_misalignment(4)
    try:
        return call()
    finally:
        emu.set_misalignment(0)


def assert_quads_agree(call, wanted, kernel):
    """Four channels a thread give the bits of one, and those of the CPU."""
    results = [emu_ops.in_all_orders(call), without_quads(call), wanted]
    assert any(name.startswith(kernel) for name in emu_build.emulator().launched())
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    for other in results[1:]:
        for got, expected in zip(results[0], other, strict=True):
            assert_same(got, expected)


@pytest.mark.parametrize("channels", [4, 20])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "out"), WINDOWS)
def test_pools_of_four_channels_a_thread(size, kernel, stride, padding, out, channels):
    x = tensor((2, channels, *size), layout=torch.channels_last)
    emu_ops.memory(x)[:: max(7, x.numel() // 5)] = float("nan")
    window = (kernel, stride, padding)
    wanted = cpu.max_pool2d(x, *window, (1, 1), out)
    assert_quads_agree(lambda: emu_ops.max_pool2d(x, *window, (1, 1), out), wanted, "max_pool_quads")
    p = tensor((6, channels, *out), layout=torch.channels_last)
    back = (p, wanted[1], size, *window, (1, 1))
    assert_quads_agree(lambda: emu_ops.max_pool2d_route(*back), cpu.max_pool2d_route(*back) + 0, "max_route_quads")
    x = tensor((2, channels, *size), layout=torch.channels_last)
    for whole in (True, False):
        wanted = cpu.avg_pool2d(x, *window, out, whole)
        assert_quads_agree(lambda w=whole: emu_ops.avg_pool2d(x, *window, out, w), wanted, "window_sum_quads")
    wanted = cpu.window_spread(p, size, *window)
    assert_quads_agree(lambda: emu_ops.window_spread(p, size, *window), wanted, "window_spread_quads")


@pytest.mark.parametrize("shape", [(2, 20, 3, 5), (1, 4, 1, 1), (3, 8)])
def test_pointwise_of_four_elements_a_thread(shape):
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    a, b = tensor((shape[0] * 3, *shape[1:]), layout=layout), tensor(shape, layout=layout)
    assert_quads_agree(lambda: emu_ops.share(a, b), cpu.share(a, b), "combine_quads_kernel<ebp::Share, false>")
    assert_quads_agree(lambda: emu_ops.gate(a, b), cpu.gate(a, b), "combine_quads_kernel<ebp::Gate, false>")
    if len(shape) == 4:
        a, b = (tensor((n, 24, *shape[2:]), layout=torch.channels_last)[:, 4:12] for n in (6, 2))
        assert_quads_agree(lambda: emu_ops.share(a, b), cpu.share(a, b), "combine_quads_kernel<ebp::Share, true>")
        assert_quads_agree(lambda: emu_ops.gate(a, b), cpu.gate(a, b), "combine_quads_kernel<ebp::Gate, true>")


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("channels", [4, 8, 20])
def test_lrn_of_four_channels_a_thread(channels, beta):
    x = tensor((2, channels, 3, 2), layout=torch.channels_last) * 30
    wanted = cpu.lrn(x, 5, 0.1, beta, 1.0)
    assert_quads_agree(lambda: emu_ops.lrn(x, 5, 0.1, beta, 1.0), wanted, "lrn_quads")


def test_a_quotient_by_multiplication_is_the_quotient():
    """Every divisor near a power of two, every size of number; at the ends of each quotient."""
    emu = emu_build.emulator()
    divisors = {max(1, 2**k + d) for k in range(31) for d in (-1, 0, 1)} | {3, 7, 28, 56, 112, 224, 1000003}
    for divisor in sorted(divisors):
        numbers = {n for q in (0, 1, 2, 3, 1000) for n in (q * divisor - 1, q * divisor)} | {2**31 - 1, 2**31 - 2}
        last = (2**31 - 1) // divisor * divisor
        for n in (n for n in numbers | {last, last - 1} if 0 <= n < 2**31):
            assert emu.quotient(n, divisor) == n // divisor, (n, divisor)


def test_every_instance_of_four_elements_a_thread_runs():
    """Whatever the objects of the shipped launchers hold has been launched, by these small calls alone."""
    for precision in ("tf32", "bf16"):
        check_rounding(precision)
    test_pointwise_of_four_elements_a_thread((2, 20, 3, 5))
    test_pools_of_four_channels_a_thread(*WINDOWS[0], 4)
    for beta in (0.75, 0.5, 1.0, 0.6):
        test_lrn_of_four_channels_a_thread(4, beta)
    x = tensor((4, 4))
    total = torch.empty_like(x)
    emu_ops.launchers(x).add(x.numel(), *(emu_ops.memory(t) for t in (x, x.square(), total)))
    assert torch.equal(total, x + x.square())
    for source in ("cuda/pool.cu", "cuda/lrn.cu", "cuda/pointwise.cu"):
        shipped = {kernel for kernel in kernels_in(source) if "quads" in kernel}
        assert shipped, f"no kernel found in {source}"
        assert shipped <= emu_build.emulator().launched(), (
            f"never launched: {shipped - emu_build.emulator().launched()}"
        )
