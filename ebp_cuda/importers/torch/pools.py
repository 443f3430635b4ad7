"""Converters of pooling and of sums and maxima over axes (see aten.py)."""

from __future__ import annotations

import math
from typing import Any

import torch

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
    if divisor is not None and window["ceil_mode"]:
        raise Refusal("has a divisor of its own (divisor_override) for windows that may be cut (ceil_mode)")
    value = c.emit("avg_pool", x.value, **window, count_include_pad=whole)
    if divisor is None:
        return value
    return c.emit("affine", value, params={"scale": torch.tensor(math.prod(window["kernel"]) / divisor, dtype=x.dtype)})


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


@converts("amax", "max")
def largest(c: Call) -> Result:
    """Over axes; of two activations, see pointwise.py's maximum."""
    if isinstance(c.args.get("other"), Activation):
        return CONVERTERS["maximum"](c)
    x = c.activation("self")
    if c.args.get("dim") is None:
        raise Refusal("takes the maximum of everything, the images of a batch included")
    dims = sorted(d % len(x.shape) for d in ([c["dim"]] if isinstance(c["dim"], int) else c["dim"]))
    kept, value = list(x.shape), x.value
    if len(dims) > 1 and dims == list(range(2, len(x.shape))):
        value = _whole_plane(c, "max_pool", x)
    else:
        for axis in dims:
            value = c.emit("arg_max", value, axis=axis, k=1, gives="values")
    for axis in dims:
        kept[axis] = 1
    value = c.reshape(Activation(value, tuple(kept)), c.out.shape)
    return value if len(c.outs) == 1 else (value, None)
