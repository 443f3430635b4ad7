"""Converters of normalisations by the statistics of the input itself: layer, group, instance and RMS norm."""

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
        raise Refusal("normalises over the images of a batch")
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
        raise Refusal("normalises over an axis of any size")
    count, weight = math.prod(sizes), c.param("weight")
    scale = torch.full((1,), math.sqrt(count), dtype=x.dtype)
    small = torch.finfo(x.dtype).eps if eps is None else float(eps)
    params = {"scale": scale if weight is None else weight * math.sqrt(count)}
    return c.emit("normalize", x.value, params=params, axes=axes, eps=count * small)


@converts("linalg_vector_norm", "norm")
def vector_norm(c: Call) -> Result:
    x, order = c.activation("self"), c["ord" if "ord" in c.args else "p"]
    dims = [c["dim"]] if isinstance(c["dim"], int) else c["dim"]
    axes = tuple(sorted(d % len(x.shape) for d in dims or ()))
    if order not in (1, 2, None) or not axes or 0 in axes:
        raise Refusal(f"is a norm of order {order} over axes {dims}, wanted order 1 or 2 and the batch left alone")
    kind = "asum" if order == 1 else "sumsq"
    value = c.emit("reduce", x.value, kind=kind, axes=axes, coefficient=1.0)
    value = value if order == 1 else c.emit("sqrt", value)
    left = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    return c.reshape(Activation(value, left, x.dtype), c.out.shape)
