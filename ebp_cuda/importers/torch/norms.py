"""Converters of normalizations by the statistics of the input itself: layer, group, instance and RMS norm."""

from __future__ import annotations

import math
from typing import Any

import torch

from .aten import Activation, Call, Refusal, Result, converts


def _scaled(c: Call, value: str, weight: torch.Tensor | None, bias: torch.Tensor | None) -> str:
    if weight is None and bias is None:
        return value
    return c.emit("affine", value, params={"scale": weight, "shift": bias})


def _per_channel(c: Call, name: str, x: Activation) -> torch.Tensor | None:
    param = c.param(name)
    return None if param is None else param.reshape(-1, *[1] * (len(x.shape) - 2))


def _first(c: Call, value: str) -> Result:
    return value if len(c.outs) == 1 else (value, *[None] * (len(c.outs) - 1))


@converts("layer_norm", "native_layer_norm")
def layer_norm(c: Call) -> Result:
    x = c.activation("input")
    axes = tuple(range(len(x.shape) - len(c["normalized_shape"]), len(x.shape)))
    if 0 in axes:
        raise Refusal("normalizes over the images of a batch")
    value = c.emit("standardize", x.value, axes=axes, eps=float(c["eps"]))
    return _first(c, _scaled(c, value, c.param("weight"), c.param("bias")))


@converts("group_norm", "native_group_norm")
def group_norm(c: Call) -> Result:
    x = c.activation("input")
    groups = int(c["num_groups"] if "num_groups" in c.args else c["group"])
    value = c.emit("standardize", x.value, axes=(), groups=groups, eps=float(c["eps"]))
    return _first(c, _scaled(c, value, _per_channel(c, "weight", x), _per_channel(c, "bias", x)))


@converts("instance_norm")
def instance_norm(c: Call) -> Result:
    x = c.activation("input")
    if not c["use_input_stats"]:
        names = {"mean": "running_mean", "var": "running_var", "weight": "weight", "bias": "bias"}
        params: dict[str, Any] = {ours: c.param(theirs) for ours, theirs in names.items()}
        return c.emit("batch_norm", x.value, params=params, eps=float(c["eps"]))
    value = c.emit("standardize", x.value, axes=tuple(range(2, len(x.shape))), eps=float(c["eps"]))
    return _scaled(c, value, _per_channel(c, "weight", x), _per_channel(c, "bias", x))


@converts("rms_norm")
def rms_norm(c: Call) -> Result:
    x, eps = c.activation("input"), c["eps"]
    axes = tuple(range(len(x.shape) - len(c["normalized_shape"]), len(x.shape)))
    sizes = [x.shape[axis] for axis in axes]
    if not all(isinstance(n, int) for n in sizes):
        raise Refusal("normalizes over an axis of any size")
    count, weight = math.prod(sizes), c.param("weight")
    scale = torch.full((1,), math.sqrt(count), dtype=x.dtype)
    small = torch.finfo(x.dtype).eps if eps is None else float(eps)
    params = {"scale": scale if weight is None else weight * math.sqrt(count)}
    return c.emit("normalize", x.value, params=params, axes=axes, eps=count * small)


def _axes(c: Call, x: Activation) -> tuple[int, ...]:
    """The axes of a reduction, which leaves the batch alone."""
    dims = [c["dim"]] if isinstance(c["dim"], int) else c["dim"]
    axes = tuple(sorted(d % len(x.shape) for d in dims or range(len(x.shape))))
    if 0 in axes:
        raise Refusal("is taken over the images of a batch")
    return axes


def _without(c: Call, value: str, x: Activation, axes: tuple[int, ...], index: int = 0) -> str:
    """`value`, which lacks `axes`, as the call's output: with them as 1 or without them."""
    left = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    out = c.outs[index]
    assert out is not None
    return c.reshape(Activation(value, left, x.dtype), out.shape)


@converts("linalg_vector_norm", "norm")
def vector_norm(c: Call) -> Result:
    """Order 1, 2, another number above 0, or infinity."""
    x, order = c.activation("self"), c["ord" if "ord" in c.args else "p"]
    axes, order = _axes(c, x), 2 if order is None else order
    if not isinstance(order, (int, float)) or order <= 0:
        raise Refusal(f"is a norm of order {order}, wanted one above 0")
    if order == math.inf:
        value = c.emit("abs", x.value)
        for axis in reversed(axes):
            value = c.emit("squeeze", c.emit("arg_max", value, axis=axis, k=1, gives="values"), axes=(axis,))
        return _without(c, value, x, axes)
    if order in (1, 2):
        value = c.emit("reduce", x.value, kind="asum" if order == 1 else "sumsq", axes=axes, coefficient=1.0)
        return _without(c, value if order == 1 else c.emit("sqrt", value), x, axes)
    powers = c.emit("power", c.emit("abs", x.value), power=float(order))
    value = c.emit("reduce", powers, kind="sum", axes=axes, coefficient=1.0)
    return _without(c, c.emit("power", value, power=1 / order), x, axes)


@converts("var", "std", "var_mean", "std_mean")
def variance(c: Call) -> Result:
    """The mean square of x less its mean, with torch's correction of the count."""
    x = c.activation("self")
    axes = _axes(c, x)
    sizes = [x.shape[axis] for axis in axes]
    if not all(isinstance(n, int) for n in sizes):
        raise Refusal("is taken over an axis of any size")
    correction = c.args.get("correction", 1 if c.args.get("unbiased", True) else 0)
    left = math.prod(sizes) - (1 if correction is None else correction)
    if left <= 0:
        raise Refusal(f"divides by {left}")
    centered = c.emit("mvn", x.value, axes=axes, eps=None)
    value = c.emit("reduce", centered, kind="sumsq", axes=axes, coefficient=1 / left)
    value = _without(c, c.emit("sqrt", value) if c.op.startswith("std") else value, x, axes)
    if len(c.outs) == 1:
        return value
    return value, _without(c, c.emit("mean", x.value, axes=axes, keepdims=False), x, axes, 1)
