"""The typed face of the compiled ops.

Throughout, x, z and winners have one row per image (N rows), probability p and its like one row per image and class
(N * K rows, image-major: row n * K + k). Tensors are float32 or float64, on the CPU or on CUDA, contiguous or
channels_last; anything else is copied into one of the two (divide_or_zero and gate also take slices of the channels of
a channels_last tensor as they are). A result has the memory format of its first argument; planes of 1 x 1 count as
channels_last. All ops are functional and deterministic to the bit. They know no autograd: call them under
torch.no_grad(). But divide_or_zero, gate, max_pool2d_route and window_spread, which are linear in relevance, let
autograd follow that one argument, for the transposed sweep. Refusals: ShapeError (shape, dtype, geometry),
UnsupportedError (device).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ShapeError
from . import fakes, rounding  # noqa: F401  tracing needs the fakes
from .adjoint import linear
from .formats import is_channel_slice, memory_format
from .library import build_info
from .operands import (
    as_channels_last_as,
    check_bias,
    check_columns,
    check_precision,
    checked,
    columns,
    conv_size,
    dense,
    geometry,
    in_layout_of,
    indexable,
    kind,
    plane,
    require_device,
    weights,
)

__all__ = [
    "avg_pool2d",
    "build_info",
    "conv2d_excitation",
    "conv2d_forward",
    "conv2d_normalizer",
    "conv2d_sweep",
    "divide_or_zero",
    "gate",
    "lrn",
    "max_pool2d",
    "max_pool2d_route",
    "max_winner",
    "require_device",
    "rounded",
    "window_spread",
    "window_sum",
]

Tensor = torch.Tensor
Ints = Sequence[int]

_ops = torch.ops.ebp_cuda


def __getattr__(name: str) -> Any:
    if name == "share":
        warnings.warn("ebp_cuda.ops.share is now divide_or_zero", DeprecationWarning, stacklevel=2)
        return divide_or_zero
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def divide_or_zero(p: Tensor, z: Tensor) -> Tensor:
    """r = p / z, and 0 where the normalizer z is below the smallest normal number of its dtype.

    p [N*K, ...], z [N, ...] -> [N*K, ...] (paper, eq. 8).
    """
    return linear(
        p,
        lambda p: _ops.share.default(*columns("divide_or_zero", "p", p, "z", z)),
        lambda u: divide_or_zero(u, z),
    )


def without_excitation(z: Tensor) -> Tensor:
    """Where a sum of non-negative numbers counts as 0 in `divide_or_zero`: bool, the shape of z."""
    return z < torch.finfo(z.dtype).tiny


def gate(s: Tensor, x: Tensor) -> Tensor:
    """s * x. s [N*K, ...], x [N, ...] -> [N*K, ...]."""
    return linear(s, lambda s: _ops.gate.default(*columns("gate", "s", s, "x", x)), lambda u: gate(u, x))


def rounded(x: Tensor, precision: str) -> Tensor:
    """float32 x rounded to "tf32" or "bf16" element by element, as the convolutions do it; "fp32" is x itself."""
    check_precision("rounded", "x", checked("rounded", "x", x), precision)
    return rounding.rounded(dense(x), precision)


def max_winner(xs: Sequence[Tensor]) -> Tensor:
    """Index (uint8) of the input that wins the element-wise maximum; all inputs of one shape.

    As in the original: of the first two, a tie goes to the second; a later input must be strictly greater.
    """
    if not 1 <= len(xs) <= 255:
        raise ShapeError(f"max_winner: got {len(xs)} tensors, wanted 1 to 255")
    first = dense(checked("max_winner", "xs[0]", xs[0]))
    for i, x in enumerate(xs):
        checked("max_winner", f"xs[{i}]", x)
        if x.shape != first.shape or x.dtype != first.dtype or x.device != first.device:
            raise ShapeError(f"max_winner: xs[{i}] is {kind(x)}, xs[0] is {kind(first)}; they must be alike")
    return _ops.max_winner.default([first, *(in_layout_of(first, x) for x in xs[1:])])


def max_pool2d(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out_size: Ints
) -> tuple[Tensor, Tensor]:
    """Maxima y and winners of windows that start at output * stride - padding; x [N, C, H, W] -> [N, C, *out_size].

    A winner is the row-major offset of the maximum in its window (uint8; int32 above 255 positions), the first of
    equals; a NaN wins. A window wholly outside the image, which Caffe's output size can ask for, holds -FLT_MAX, and
    its winner (255, or -1 as int32) is nobody.
    """
    x = plane("max_pool2d", "x", x)
    geometry("max_pool2d", kernel, stride, padding, dilation, out_size)
    return _ops.max_pool2d.default(x, kernel, stride, padding, dilation, out_size)


def max_pool2d_route(
    p: Tensor, winner: Tensor, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Tensor:
    """p [N*K, C, h, w] moved to the winners [N, C, h, w] of `max_pool2d`: [N*K, C, *in_size]."""
    p = plane("max_pool2d_route", "p", p)
    geometry("max_pool2d_route", kernel, stride, padding, dilation, in_size)
    check_columns("max_pool2d_route", "p", p, "winner", winner)
    code = torch.int32 if kernel[0] * kernel[1] > 255 else torch.uint8
    if winner.dtype != code:
        raise ShapeError(f"max_pool2d_route: winner is {winner.dtype}, wanted {code} for kernel {tuple(kernel)}")
    p, window = as_channels_last_as(p, winner), (kernel, stride, padding, dilation)
    return linear(
        p,
        lambda p: _ops.max_pool2d_route.default(p, in_layout_of(p, winner), in_size, *window),
        lambda u: _picked(u, winner, window_places(winner, in_size, *window)),
    )


def window_places(winner: Tensor, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    """Winners of `max_pool2d` (offsets in a window) as row-major indices into the input plane, int64."""
    code = winner.long()
    rows, columns = (torch.arange(n, device=code.device) for n in winner.shape[2:])
    row = rows[:, None] * stride[0] - padding[0] + code // kernel[1] * dilation[0]
    column = columns * stride[1] - padding[1] + code % kernel[1] * dilation[1]
    return row * in_size[1] + column


def _picked(u: Tensor, winner: Tensor, places: Tensor) -> Tensor:
    """u [N*K, C, H, W] at the winners of every window, and 0 where a window has none: the adjoint of the route."""
    nobody = 255 if winner.dtype == torch.uint8 else -1
    there = (winner != nobody).to(u.dtype)
    known = places.clamp(0, u.shape[2] * u.shape[3] - 1).flatten(2)
    known = known.repeat_interleave(u.shape[0] // winner.shape[0], 0)
    return gate(u.flatten(2).gather(2, known).reshape(-1, *winner.shape[1:]), there)


def window_sum(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints) -> Tensor:
    """Sum over the part of each window that lies in the image: [N, C, H, W] -> [N, C, *out_size]."""
    x = plane("window_sum", "x", x)
    geometry("window_sum", kernel, stride, padding, (1, 1), out_size)
    return _ops.window_sum.default(x, kernel, stride, padding, out_size)


def window_spread(r: Tensor, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints) -> Tensor:
    """The adjoint of `window_sum`: every input gets the sum of r over the windows that hold it; [N, C, *in_size]."""
    r = plane("window_spread", "r", r)
    geometry("window_spread", kernel, stride, padding, (1, 1), in_size)
    size = r.shape[2:]
    return linear(
        r,
        lambda r: _ops.window_spread.default(r, in_size, kernel, stride, padding),
        lambda u: window_sum(u, kernel, stride, padding, size),
    )


def avg_pool2d(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints, count_include_pad: bool) -> Tensor:
    """Average pooling: [N, C, H, W] -> [N, C, *out_size].

    With count_include_pad the divisor is the window clipped to the plane with its padding on both sides (Caffe, and
    torch with ceil_mode), otherwise to the plane. An empty window is 0 / 0.
    """
    x = plane("avg_pool2d", "x", x)
    geometry("avg_pool2d", kernel, stride, padding, (1, 1), out_size)
    return _ops.avg_pool2d.default(x, kernel, stride, padding, out_size, count_include_pad)


def lrn(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """Local response normalization across channels, x [N, C, ...]: x / (k + alpha / size * sum of squares) ** beta.

    The window of `size` channels starts (size - 1) // 2 before the channel and is clipped at the ends.
    """
    if checked("lrn", "x", x).dim() < 2 or size < 1:
        raise ShapeError(f"lrn: got x of shape {tuple(x.shape)} and size={size}, wanted [N, C, ...] and size >= 1")
    return _ops.lrn.default(dense(x), size, alpha, beta, k)


def conv2d_normalizer(
    x: Tensor,
    w_plus: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    precision: str = "fp32",
) -> Tensor:
    """z = W+ x. x [N, I, H, W], w_plus [O, I/groups, kh, kw], padding (top, left, bottom, right) -> [N, O, h, w].

    On the CPU a channels_last w_plus makes the result channels_last too; on CUDA float32 is fastest where both are
    channels_last. `precision` "tf32" or "bf16" rounds x and w_plus to that, for tensor cores where there are any.
    """
    check_precision("conv2d_normalizer", "x", x, precision)
    x, w_plus = plane("conv2d_normalizer", "x", x), weights("conv2d_normalizer", w_plus, x, groups)
    geometry = tuple(stride), tuple(padding), tuple(dilation)
    size = conv_size("conv2d_normalizer", x.shape[2:], w_plus.shape[2:], *geometry)
    if x.shape[1] != w_plus.shape[1] * groups:
        raise ShapeError(f"conv2d_normalizer: x has {x.shape[1]} channels, wanted {w_plus.shape[1] * groups}")
    indexable("conv2d_normalizer", "the result", x.shape[0] * w_plus.shape[0] * size[0] * size[1])
    return _ops.conv2d_normalizer.default(x, w_plus, stride, padding, dilation, groups, *_unless_fp32(precision))


def conv2d_excitation(
    x: Tensor,
    w: Tensor,
    w_plus: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    relu: bool,
    as_gate: bool,
) -> tuple[Tensor, Tensor]:
    """y = W x + bias, through a ReLU where `relu`, and beside it z = W+ x, or y / z (0 where z is 0) where `as_gate`.

    Shapes as for `conv2d_normalizer`, bias [O]. On CUDA one kernel that reads x once, and float32 only; w and w_plus
    must lie alike.
    """
    op = "conv2d_excitation"
    x, w, w_plus = plane(op, "x", x), weights(op, w, x, groups), weights(op, w_plus, x, groups)
    size = conv_size(op, x.shape[2:], w.shape[2:], tuple(stride), tuple(padding), tuple(dilation))
    if x.shape[1] != w.shape[1] * groups or w.shape != w_plus.shape:
        raise ShapeError(f"{op}: w is {list(w.shape)}, w_plus {list(w_plus.shape)}, x has {x.shape[1]} channels")
    if bias is not None:
        check_bias(op, bias, w, x)
    indexable(op, "the result", x.shape[0] * w.shape[0] * size[0] * size[1])
    w_plus = w_plus.contiguous(memory_format=memory_format(w))
    return _ops.conv2d_excitation.default(x, w, w_plus, bias, stride, padding, dilation, groups, relu, as_gate)


def conv2d_forward(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """y = W x + bias for the precisions "tf32" and "bf16": on tensor cores, and yet nearly float32.

    Shapes as for `conv2d_normalizer`, bias [O]. On CUDA, float32 only, x and w are split into two tf32 summands each,
    and three of the four products are summed up: 21 of 24 bits are kept, where one product would keep 11, which moves a
    contrastive map by percents. Where tensor cores cannot read the operands it is float32, as on a CPU.
    """
    op = "conv2d_forward"
    x, w = plane(op, "x", x), weights(op, w, x, groups)
    size = conv_size(op, x.shape[2:], w.shape[2:], tuple(stride), tuple(padding), tuple(dilation))
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(f"{op}: x has {x.shape[1]} channels, wanted {w.shape[1] * groups}")
    if bias is not None:
        check_bias(op, bias, w, x)
    indexable(op, "the result", x.shape[0] * w.shape[0] * size[0] * size[1])
    return _ops.conv2d_forward.default(x, w, bias, stride, padding, dilation, groups)


def conv2d_sweep(
    r: Tensor,
    w_plus: Tensor,
    in_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    gate: Tensor | None = None,
    addend: Tensor | None = None,
    precision: str = "fp32",
) -> Tensor:
    """t = W+^T r, the transposed convolution: r [N*K, O, h, w] -> [N*K, I, *in_size]; p below is x * t.

    w_plus, the geometry and `precision` are those of the convolution that went up; "tf32" and "bf16" round w_plus and
    split r into two summands, so that hardly anything of it is lost. With an addend [N*K, I, *in_size] the result is
    t + addend, with a gate [N, I, *in_size] it is that times the gate, in one kernel on CUDA; an x for gate must be
    `rounded`, as it was for the normalizer.
    """
    check_precision("conv2d_sweep", "r", r, precision)
    r, w_plus = plane("conv2d_sweep", "r", r), weights("conv2d_sweep", w_plus, r, groups)
    geometry = tuple(stride), tuple(padding), tuple(dilation)
    size = conv_size("conv2d_sweep", tuple(in_size), w_plus.shape[2:], *geometry)
    if tuple(r.shape[1:]) != (w_plus.shape[0], *size):
        raise ShapeError(f"conv2d_sweep: r is {list(r.shape)}, wanted [N*K, {w_plus.shape[0]}, {size[0]}, {size[1]}]")
    r = as_channels_last_as(r, w_plus) if not w_plus.is_contiguous() else r
    indexable("conv2d_sweep", "the result", r.shape[0] * w_plus.shape[1] * groups * in_size[0] * in_size[1])
    more: tuple[Any, ...] = ()
    if gate is not None or addend is not None or precision != "fp32":
        shape = (r.shape[0], w_plus.shape[1] * groups, *in_size)
        more = (_factor(r, shape, gate), precision, *([] if addend is None else [_addend(r, shape, addend)]))
    return _ops.conv2d_sweep.default(r, w_plus, in_size, stride, padding, dilation, groups, *more)


def _unless_fp32(precision: str) -> tuple[str, ...]:
    return () if precision == "fp32" else (precision,)


def _addend(r: Tensor, shape: tuple[int, ...], addend: Tensor) -> Tensor:
    """The addend of a sweep whose result has that shape and is laid out as r is."""
    if tuple(addend.shape) != shape or addend.dtype != r.dtype or addend.device != r.device:
        raise ShapeError(f"conv2d_sweep: addend is {kind(addend)}, wanted {list(shape)} beside r, which is {kind(r)}")
    return in_layout_of(r, addend)


def _factor(r: Tensor, shape: tuple[int, ...], gate: Tensor | None) -> Tensor | None:
    """The gate of a sweep whose result has that shape and is laid out as r is."""
    if gate is None:
        return None
    check_columns("conv2d_sweep", "the result", r.new_empty(1).expand(shape), "gate", gate)
    if gate.dtype != r.dtype:
        raise ShapeError(f"conv2d_sweep: gate is {gate.dtype}, r is {r.dtype}; they must be of one dtype")
    return gate if memory_format(r) == torch.channels_last and is_channel_slice(gate) else in_layout_of(r, gate)
