"""The ops of ebp_cuda through the emulator: torch tensors in and out, the CUDA kernels in between.

Parameters are made here anew, from the documentation of the ops, so that the tests also notice wrong ones in csrc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

from support.emu_build import emulator

Tensor = torch.Tensor
Ints = Sequence[int]
Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


def memory(t: Tensor) -> NDArray[Any]:
    """A tensor's memory from its first element to its last, gaps included, shared with it."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.as_strided((span,), (1,)).numpy()


def channels_last(t: Tensor) -> bool:
    return t.dim() == 4 and t.stride(1) == 1 and t.shape[1] > 1


def empty(shape: Ints, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A new tensor that lies as `like` does. Where 1 channel or 1x1 planes leave it open, that makes no difference."""
    format_ = torch.channels_last if channels_last(like) else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, memory_format=format_)


def launchers(t: Tensor) -> ModuleType:
    """The launchers for the dtype of t."""
    module: ModuleType = emulator().f32 if t.dtype == torch.float32 else emulator().f64
    return module


def bits(t: Tensor) -> bytes:
    return memory(t).tobytes()


def in_all_orders(call: Callable[[], Result]) -> Result:
    """The result of a call, after making sure that no order of threads and blocks changes a bit of it."""
    emu = emulator()
    emu.set_order(emu.Order.forward)
    first = call()
    try:
        for order in (emu.Order.reversed, emu.Order.shuffled):
            emu.set_order(order, 20)
            other = call()
            for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (first, other)), strict=True):
                assert bits(a) == bits(b), f"the result depends on the order of threads: {order}"
    finally:
        emu.set_order(emu.Order.forward)
    return first


def _rows(column: Tensor, shared: Tensor) -> Any:
    """Elements lie in runs of neighbors: the channels of a pixel, or a whole row where there are no gaps."""
    emu, row = emulator(), column[0].numel()
    run = column.shape[1] if channels_last(column) else row
    apart = [emu.Distances(t.stride(0), t.stride(3) if channels_last(column) else run) for t in (column, shared)]
    return emu.Rows(column.numel(), row, column.shape[0] // shared.shape[0], run, *apart)


def share(p: Tensor, z: Tensor) -> Tensor:
    r = empty(p.shape, p)
    launchers(p).share(_rows(p, z), memory(p), memory(z), memory(r))
    return r


def gate(s: Tensor, x: Tensor) -> Tensor:
    y = empty(s.shape, s)
    launchers(s).gate(_rows(s, x), memory(s), memory(x), memory(y))
    return y


def max_winner(xs: Sequence[Tensor]) -> Tensor:
    winner = torch.empty_like(xs[0], dtype=torch.uint8)
    launchers(xs[0]).max_winner(winner.numel(), [memory(x) for x in xs], memory(winner))
    return winner


def _axes(below: Ints, above: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> tuple[Any, Any]:
    rows, cols = zip(below, above, kernel, stride, padding[:2], dilation, strict=True)
    return emulator().Axis(*rows), emulator().Axis(*cols)


def _pool(t: Tensor, axes: tuple[Any, Any], columns: int = 1) -> Any:
    n, c = t.shape[:2]
    return emulator().Pool2d(n, 1 if channels_last(t) else c, c if channels_last(t) else 1, *axes, columns)


def _wide(kernel: Ints) -> bool:
    return kernel[0] * kernel[1] > 255


def max_pool2d(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out_size: Ints
) -> tuple[Tensor, Tensor]:
    y = empty((*x.shape[:2], *out_size), x)
    winner = empty(y.shape, x, torch.int32 if _wide(kernel) else torch.uint8)
    d = _pool(x, _axes(x.shape[2:], out_size, kernel, stride, padding, dilation))
    launchers(x).max_pool(d, memory(x), memory(y), memory(winner), _wide(kernel))
    return y, winner


def max_pool2d_route(
    p: Tensor, winner: Tensor, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Tensor:
    below = empty((*p.shape[:2], *in_size), p)
    axes = _axes(in_size, p.shape[2:], kernel, stride, padding, dilation)
    d = _pool(p, axes, p.shape[0] // winner.shape[0])
    launchers(p).max_route(d, memory(p), memory(winner), _wide(kernel), memory(below))
    return below


def _window_average(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints, divisor: str) -> Tensor:
    y = empty((*x.shape[:2], *out_size), x)
    d = _pool(x, _axes(x.shape[2:], out_size, kernel, stride, padding, (1, 1)))
    launchers(x).window_sum(d, getattr(emulator().Divisor, divisor), memory(x), memory(y))
    return y


def window_sum(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints) -> Tensor:
    return _window_average(x, kernel, stride, padding, out_size, "none")


def avg_pool2d(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints, count_include_pad: bool) -> Tensor:
    return _window_average(x, kernel, stride, padding, out_size, "padded" if count_include_pad else "inside")


def window_spread(r: Tensor, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints) -> Tensor:
    below = empty((*r.shape[:2], *in_size), r)
    d = _pool(r, _axes(in_size, r.shape[2:], kernel, stride, padding, (1, 1)))
    launchers(r).window_spread(d, memory(r), memory(below))
    return below


def lrn(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    y, c = torch.empty_like(x), x.shape[1]
    pixels = x[0, 0].numel()
    outer, inner = (x.shape[0] * pixels, 1) if channels_last(x) else (x.shape[0], pixels)
    launchers(x).lrn(emulator().Lrn(outer, c, inner, size, alpha / size, beta, k), memory(x), memory(y))
    return y


def conv_out_size(in_size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> tuple[int, int]:
    """padding is (top, left, bottom, right)."""
    spans = [in_size[i] + padding[i] + padding[2 + i] - dilation[i] * (kernel[i] - 1) - 1 for i in (0, 1)]
    return spans[0] // stride[0] + 1, spans[1] // stride[1] + 1


def conv_problem(
    lower: Tensor, upper: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Any:
    """The Conv2d of params.h for tensors below and above a convolution with weights w."""
    emu = emulator()
    axes = _axes(lower.shape[2:], upper.shape[2:], w.shape[2:], stride, padding, dilation)
    strides = (emu.Strides(*lower.stride()), emu.Strides(*upper.stride()))
    return emu.Conv2d(lower.shape[0], lower.shape[1], upper.shape[1], groups, *axes, *strides)


def conv2d_normalizer(x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Tensor:
    size = conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    z = empty((x.shape[0], w.shape[0], *size), x)
    d = conv_problem(x, z, w, stride, padding, dilation, groups)
    launchers(x).conv_normalizer(d, memory(x), memory(w), memory(z))
    return z


def conv2d_sweep(
    r: Tensor, w: Tensor, in_size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    below = empty((r.shape[0], w.shape[1] * groups, *in_size), r)
    d = conv_problem(below, r, w, stride, padding, dilation, groups)
    launchers(r).conv_sweep(d, memory(r), memory(w), memory(below))
    return below
