"""One layer down: relevance of a layer's outputs to relevance of its inputs, as functions of arrays.

    p_below = ebp_cuda.functional.conv2d(p, x, w, stride=2, padding=1)

For code that carries relevance through a network by itself. The formulas are those of the rule set "caffe": share for
conv2d, linear, avg_pool2d and add, route for max_pool2d (docs/rules.md).

x is the layer's input for N images, p the relevance of its output for K classes of each, [N*K, ...] with the classes
of one image side by side (row n * K + k); K may be 1. All arrays are float32, or all float64, and of one library:
torch tensors on one device, NumPy arrays, or CuPy arrays, whose memory is used as it is. The result is of their kind.

torch.compile and torch.export trace through; torch.autocast changes nothing; inputs in half precision are refused
(ShapeError). There is no derivative: a backward() that reaches a result raises UnsupportedError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from . import ops
from .errors import ShapeError, UnsupportedError
from .graph import Node
from .interop import Array, like, one_kind, to_tensor
from .ops.modes import exact
from .rules.pooling import Windows

__all__ = ["add", "avg_pool2d", "conv2d", "linear", "max_pool2d"]

Tensor = torch.Tensor
Pair: TypeAlias = "int | Sequence[int]"


@torch.library.custom_op("ebp_cuda_functional::refuse_gradient", mutates_args=())
def _refuse_gradient(gradient: Tensor, of: Tensor) -> Tensor:
    """An operator, so that a compiled backward raises when it runs and not when it is compiled."""
    raise UnsupportedError(
        "backward() through ebp_cuda.functional: relevance has no derivative here. Detach it (p_below.detach()), or "
        "call under torch.no_grad()"
    )


@_refuse_gradient.register_fake
def _(gradient: Tensor, of: Tensor) -> Tensor:
    return torch.empty_like(of)


class _WithoutGradient(torch.autograd.Function):
    """Ties a result to the inputs that want gradients, so that asking for them is an error and not a silent zero."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(_refuse_gradient(gradients[0], x) for x in ctx.saved_tensors))


def _on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of detached tensors, for arrays of any library; its first arguments, by position, are the arrays."""

    @wraps(function)
    def call(p: Array, *args: Any, **options: Any) -> Any:
        count = next((i for i, arg in enumerate(args) if not hasattr(arg, "__dlpack__")), len(args))
        arrays = [p, *args[:count]]
        if not all(isinstance(array, Tensor) for array in arrays):
            one_kind(function.__name__, arrays)
        tensors = [to_tensor(array) for array in arrays]
        with exact(tensors[0].device):
            result = function(*(t.detach() for t in tensors), *args[count:], **options)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            differentiable = [t for t in tensors if t.requires_grad]
            if isinstance(result, tuple):
                return tuple(_WithoutGradient.apply(part, *differentiable) for part in result)
            return _WithoutGradient.apply(result, *differentiable)
        if isinstance(result, tuple):
            return tuple(like(p, part) for part in result)
        return like(p, result)

    return call


@_on_tensors
def conv2d(
    p: Array,
    x: Array,
    w: Array,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """x * W+^T (p / (W+ x)) for a convolution: p [N*K, O, h, w] -> [N*K, C, H, W].

    x: [N, C, H, W]. w: [O, C/groups, kh, kw], signed; its positive part is taken here. padding: one number, one for
    each axis, or (top, left, bottom, right). No bias takes part. Raises ShapeError.
    """
    w_plus = w.clamp(min=0)
    step, spread = _pair("conv2d", "stride", stride), _pair("conv2d", "dilation", dilation)
    four = not isinstance(padding, int) and len(padding) == 4
    pads = tuple(padding) if four else _pair("conv2d", "padding", padding) * 2  # type: ignore[arg-type]
    z = ops.conv2d_normalizer(x, w_plus, step, pads, spread, groups)
    r = ops.divide_or_zero(_fitting("conv2d", p, z), z)
    return ops.conv2d_sweep(r, w_plus, x.shape[2:], step, pads, spread, groups, gate=x)


@_on_tensors
def linear(p: Array, x: Array, w: Array) -> Array:
    """x * W+^T (p / (W+ x)) for a fully connected layer: p [N*K, ..., O] -> [N*K, ..., I].

    x: [N, ..., I]. w: [O, I], signed; its positive part is taken here. No bias takes part. Raises ShapeError.
    """
    if w.dim() != 2 or x.dim() < 2 or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"linear: x is {list(x.shape)}, w is {list(w.shape)}; wanted [N, ..., I] and [O, I]")
    if x.dtype != w.dtype:
        raise ShapeError(f"linear: x is {x.dtype}, w is {w.dtype}; they must be of one dtype")
    w_plus = w.clamp(min=0)
    z = F.linear(x, w_plus)
    return ops.gate(ops.divide_or_zero(_fitting("linear", p, z), z) @ w_plus, x)


@_on_tensors
def avg_pool2d(
    p: Array, x: Array, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False
) -> Array:
    """p shared in proportion to x within each window, padding left out: p [N*K, C, h, w] -> [N*K, C, H, W].

    x: [N, C, H, W]. A window whose sum is not above 0 passes nothing on. Raises ShapeError.
    """
    windows = _windows("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    window = (windows.kernel, windows.stride, windows.padding)
    z = ops.window_sum(x, *window, windows.out_size).clamp(min=0)
    r = ops.divide_or_zero(_fitting("avg_pool2d", p, z), z)
    return ops.gate(ops.window_spread(r, windows.in_size, *window), x)


@_on_tensors
def max_pool2d(
    p: Array,
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """p moved to the largest x of each window, the first of equals: p [N*K, C, h, w] -> [N*K, C, H, W].

    x: [N, C, H, W]. Raises ShapeError.
    """
    windows = _windows("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    window = (windows.kernel, windows.stride, windows.padding, windows.dilation)
    y, winner = ops.max_pool2d(x, *window, windows.out_size)
    return ops.max_pool2d_route(_fitting("max_pool2d", p, y), winner, windows.in_size, *window)


@_on_tensors
def add(p: Array, *xs: Array) -> tuple[Array, ...]:
    """p shared in proportion to each of two or more summands: p [N*K, ...] -> one [N*K, ...] for each x [N, ...].

    Where the sum is 0 nothing is passed on. Raises ShapeError.
    """
    if len(xs) < 2 or any(x.shape != xs[0].shape for x in xs):
        raise ShapeError(f"add: summands have shapes {[list(x.shape) for x in xs]}, wanted two or more of one shape")
    total = xs[0] + xs[1]
    for x in xs[2:]:
        total = total + x
    r = ops.divide_or_zero(_fitting("add", p, total), total)
    return tuple(ops.gate(r, x) for x in xs)


def _pair(function: str, name: str, value: Pair) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise ShapeError(f"{function}: got {name}={value!r}, wanted a number, or one for each of two axes")
    return pair[0], pair[1]


def _windows(
    function: str, x: Tensor, kernel: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Windows:
    if x.dim() != 4:
        raise ShapeError(f"{function}: x is {list(x.shape)}, wanted [N, C, H, W]")
    pads = _pair(function, "padding", padding)
    attrs = {
        "kernel": _pair(function, "kernel_size", kernel),
        "stride": _pair(function, "stride", kernel if stride is None else stride),
        "padding": pads,
        "padding_end": pads,
        "dilation": _pair(function, "dilation", dilation),
        "ceil_mode": ceil_mode,
    }
    return Windows(Node(function, function.removesuffix("2d"), ("x",), ("y",), attrs), x)


def _fitting(function: str, p: Tensor, y: Tensor) -> Tensor:
    """p, if it is relevance of something shaped like y."""
    if p.shape[1:] != y.shape[1:] or p.shape[0] % max(y.shape[0], 1):
        layout = f"[{y.shape[0]} * K, {', '.join(str(n) for n in y.shape[1:])}]"
        raise ShapeError(
            f"{function}: p is {list(p.shape)}, wanted {layout}, the layer's output for K classes an image"
        )
    return p
