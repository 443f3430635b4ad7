"""Converters of pooling and of sums and maxima over axes (see aten.py)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from .aten import CONVERTERS, Activation, Call, Refusal, Result, converts, rank_in_name, spatial


def _window(c: Call, rank: int) -> dict[str, Any]:
    kernel = c.ints("kernel_size", rank)
    padding = c.ints("padding", rank)
    stride = c.ints("stride", rank) if c["stride"] else kernel
    dilation = c.ints("dilation", rank) if "dilation" in c.args else (1,) * rank
    shared = {"kernel": kernel, "stride": stride, "padding": padding, "padding_end": padding, "dilation": dilation}
    return {**shared, "ceil_mode": bool(c["ceil_mode"])}


@converts("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(c: Call) -> Result:
    x = c.activation("self")
    value = c.emit("max_pool", x.value, **_window(c, spatial(x, rank_in_name(c.op))))
    return (value, None) if len(c.outs) == 2 else value


@converts("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(c: Call) -> Result:
    x = c.activation("self")
    window, divisor = _window(c, spatial(x, rank_in_name(c.op))), c.args.get("divisor_override")
    whole = bool(c["count_include_pad"]) or divisor is not None
    value = c.emit("avg_pool", x.value, **window, count_include_pad=whole)
    if divisor is None:
        return value
    if not window["ceil_mode"]:
        scale = torch.tensor(math.prod(window["kernel"]) / divisor, dtype=x.dtype)
    elif all(isinstance(n, int) for n in x.shape[2:]):
        scale = _elements(x, window) / divisor
    else:
        raise Refusal("has a divisor of its own (divisor_override) for windows that may be cut, on planes of any size")
    return c.emit("affine", value, params={"scale": scale})


def _elements(x: Activation, window: dict[str, Any]) -> torch.Tensor:
    """By how many elements each window divides that ceil_mode may have cut, [1, 1, *outputs].

    A plane of ones, averaged, is (elements of the plane) / (elements that the window divides by); the divisor 1 leaves
    the first of these two.
    """
    pool = F.avg_pool2d if len(x.shape) == 4 else F.avg_pool3d
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    settings = window["kernel"], window["stride"], window["padding"], True, True
    return pool(ones, *settings, divisor_override=1) / pool(ones, *settings)


def _whole_plane(c: Call, op: str, x: Activation) -> str:
    axes = tuple(range(2, len(x.shape)))
    if op == "avg_pool":
        return c.emit("mean", x.value, axes=axes, keepdims=True)
    none, ones = (0,) * len(axes), (1,) * len(axes)
    attrs: dict[str, Any] = {"stride": ones, "padding": none, "padding_end": none, "dilation": ones, "ceil_mode": False}
    return c.emit("max_pool", x.value, kernel=None, **attrs)


@converts(*(f"adaptive_{kind}_pool{rank}d" for kind in ("avg", "max") for rank in (1, 2, 3)))
def adaptive_pool(c: Call) -> Result:
    x, out = c.activation("self"), c.out
    op = "max_pool" if "max" in c.op else "avg_pool"
    rank = spatial(x, rank_in_name(c.op))
    sizes, outputs = x.shape[2:], out.shape[2:]
    if all(n == 1 for n in outputs):
        value = _whole_plane(c, op, x)
    elif sizes == outputs:
        value = c.emit("identity", x.value)
    elif not all(isinstance(n, int) and n % m == 0 for n, m in zip(sizes, outputs, strict=True)):
        as_many = tuple(None if m == n else m for n, m in zip(sizes, outputs, strict=True))
        value = c.emit(f"adaptive_{op}", x.value, size=outputs if all(isinstance(m, int) for m in outputs) else as_many)
    else:
        kernel = tuple(n // m for n, m in zip(sizes, outputs, strict=True))
        none = (0,) * rank
        attrs: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": none, "padding_end": none}
        extra: dict[str, Any] = {"count_include_pad": True} if op == "avg_pool" else {}
        value = c.emit(op, x.value, **attrs, dilation=(1,) * rank, ceil_mode=False, **extra)
    return (value, None) if len(c.outs) == 2 else value


@converts("mean", "sum")
def mean(c: Call) -> Result:
    x = c.activation("self")
    dims = c.args.get("dim")
    axes = tuple(sorted(d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(x.shape)))))
    value = c.emit("mean", x.value, axes=axes, keepdims=bool(c.args.get("keepdim")))
    if c.op == "mean":
        return value
    sizes = [x.shape[axis] for axis in axes]
    if not all(isinstance(n, int) for n in sizes):
        raise Refusal("sums over the batch")
    return c.emit("affine", value, params={"scale": torch.tensor(float(math.prod(sizes)), dtype=x.dtype)})


@converts("amax", "max", "amin", "min", "aminmax")
def largest(c: Call) -> Result:
    """Over axes; of two values, see functions.py's extremes. The smallest is that of -x, negated."""
    if "other" in c.args:
        return CONVERTERS["minimum" if "min" in c.op else "maximum"](c)
    x, dim = c.activation("self"), c.args.get("dim")
    if dim is None or dim == []:
        raise Refusal("takes the maximum of everything, the images of a batch included")
    if c.op == "aminmax":
        return _over_axes(c, x, dim, is_min=True), _over_axes(c, x, dim, is_min=False)
    value = _over_axes(c, x, dim, is_min="min" in c.op)
    return value if len(c.outs) == 1 else (value, None)


def _over_axes(c: Call, x: Activation, dim: Any, is_min: bool) -> str:
    dims = sorted(d % len(x.shape) for d in ([dim] if isinstance(dim, int) else dim))
    minus = {"scale": torch.tensor(-1.0, dtype=x.dtype)}
    kept, value = list(x.shape), c.emit("affine", x.value, params=minus) if is_min else x.value
    if len(dims) > 1 and dims == list(range(2, len(x.shape))):
        value = _whole_plane(c, "max_pool", Activation(value, x.shape, x.dtype))
    else:
        for axis in dims:
            value = c.emit("arg_max", value, axis=axis, k=1, gives="values")
    for axis in dims:
        kept[axis] = 1
    value = c.emit("affine", value, params=minus) if is_min else value
    return c.reshape(Activation(value, tuple(kept)), c.out.shape)


@converts("prod")
def product(c: Call) -> Result:
    x = c.activation("self")
    if c.args.get("dim") is None:
        raise Refusal("multiplies everything, the images of a batch included")
    axis = c.axis("dim", len(x.shape))
    value = c.emit("product", x.value, axes=(axis,))
    left = tuple(n for i, n in enumerate(x.shape) if i != axis)
    return c.reshape(Activation(value, left, x.dtype), c.out.shape)


@converts("logsumexp")
def logsumexp(c: Call) -> Result:
    x, dims = c.activation("self"), c["dim"]
    axes = tuple(sorted(d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims)))
    value = c.emit("logsumexp", x.value, axes=axes)
    left = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return c.reshape(Activation(value, left, x.dtype), c.out.shape)


@converts("cumsum")
def cumsum(c: Call) -> Result:
    x = c.activation("self")
    axis = c.axis("dim", len(x.shape))
    if axis == 0 or not isinstance(x.shape[axis], int):
        raise Refusal("adds up the images of a batch, or an axis of any size")
    lower = torch.ones(x.shape[axis], x.shape[axis], dtype=x.dtype).tril()
    return c.emit("weighted_sum", x.value, axis=axis, params={"weight": lower})
