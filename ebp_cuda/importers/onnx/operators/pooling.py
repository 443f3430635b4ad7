"""Converters of pooling."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ....graph import Node
from ..call import CAFFE_DOMAIN, Call, converter
from .layers import geometry

_CAFFE_MASK = f"{CAFFE_DOMAIN}::PoolingMask"
_LARGEST_PLACE = 1 << 24
"""Above it a float32 does not hold every integer."""


@converter("MaxPool")
def max_pool(call: Call) -> list[Node]:
    """One to three spatial axes; places of the maxima (one or two axes) where the number of images is fixed."""
    kernel = tuple(call.attr("kernel_shape"))
    attrs = {**geometry(call, kernel), "kernel": kernel, "ceil_mode": call.flag("ceil_mode")}
    if not call.is_asked(1):
        call.ignore_attrs("storage_order")  # of the places
        return [call.node("max_pool", attrs, inputs=call.x)]
    call.no_attr("storage_order", 0, "0, row by row")
    if call.readers(1) == {_CAFFE_MASK}:  # which asks for places in a plane
        return [call.node("max_pool", attrs, inputs=call.x, outputs=call.outputs)]
    shapes = call.known_shapes()
    if len(shapes) > 1 or prod(shapes[0]) > _LARGEST_PLACE:
        raise call.refusal("its second output counts places over all images", "a fixed size, or one output")
    call.charge(prod(shapes[0][:2]), 8)
    planes = np.arange(prod(shapes[0][:2]), dtype=np.float32) * prod(shapes[0][2:])
    offsets = planes.reshape(*shapes[0][:2], *[1] * len(kernel))
    places = f"{call.name}.places"
    pool = call.node("max_pool", attrs, inputs=call.x, outputs=(call.outputs[0], places))
    return [pool, call.other(1, "affine", places, {"shift": offsets})]


@converter("AveragePool")
def average_pool(call: Call) -> list[Node]:
    """One to three spatial axes, without dilation."""
    kernel = tuple(call.attr("kernel_shape"))
    attrs = {**geometry(call, kernel), "kernel": kernel, "ceil_mode": call.flag("ceil_mode")}
    if set(attrs["dilation"]) != {1}:
        raise call.refusal(f"attribute dilations = {list(attrs['dilation'])}", "1")
    return _averaged(call, call.x, attrs, call.flag("count_include_pad"))


def _averaged(call: Call, x: str, attrs: dict[str, Any], whole: bool) -> list[Node]:
    """Average pooling as the call's output; padding that differs between the sides is made of zeros."""
    before, after = attrs["padding"], attrs["padding_end"]
    if before == after:
        return [call.node("avg_pool", {**attrs, "count_include_pad": whole}, inputs=x)]
    none = (0,) * len(before)
    plain = {**attrs, "padding": none, "padding_end": none, "ceil_mode": False, "count_include_pad": True}
    if whole and not attrs["ceil_mode"]:
        zeros = call.step("pad", x, "padded", pads=((0, 0), (0, 0), *zip(before, after, strict=True)))
        return [zeros, call.node("avg_pool", plain, inputs=zeros.outputs)]
    pads, counts = [], np.ones([1] * len(before))
    for axis, kernel in enumerate(attrs["kernel"]):
        starts, behind = _windows(call, attrs, axis)
        pads.append((before[axis], behind))
        edges = (-before[axis], call.length(axis + 2) + after[axis]) if whole else (0, call.length(axis + 2))
        inside = np.clip(starts + kernel, *edges) - np.clip(starts, *edges)
        call.charge(counts.size * inside.size, 24)
        counts = counts * inside.reshape([-1 if n == axis else 1 for n in range(len(before))])
    zeros = call.step("pad", x, "padded", pads=((0, 0), (0, 0), *pads))
    mean = call.step("avg_pool", zeros.outputs, "mean", **plain)
    scale = {"scale": (prod(attrs["kernel"]) / counts).astype(np.float32)}
    return [zeros, mean, call.node("affine", params=scale, inputs=mean.outputs)]


def _windows(call: Call, attrs: dict[str, Any], axis: int) -> tuple[np.ndarray, int]:
    """Where the windows of a spatial axis start in the image, and how much padding the last one needs behind it."""
    kernel, stride, before, after = (attrs[key][axis] for key in ("kernel", "stride", "padding", "padding_end"))
    size = call.length(axis + 2)
    room = size + before + after - kernel
    count = (-(-room // stride) if attrs["ceil_mode"] else room // stride) + 1
    if attrs["ceil_mode"] and count > 1 and (count - 1) * stride >= size + before:
        count -= 1
    call.charge(count, 32)
    starts = np.arange(count) * stride - before
    return starts, max(int(starts[-1]) + kernel - size, 0)


@converter("LpPool")
def lp_pool(call: Call) -> list[Node]:
    """Of order 1 and 2, without dilation: a mean of powers, times the window, and its root."""
    kernel, order = tuple(call.attr("kernel_shape")), call.attr("p", 2)
    attrs = {**geometry(call, kernel), "kernel": kernel, "ceil_mode": call.flag("ceil_mode")}
    if order not in (1, 2) or set(attrs["dilation"]) != {1} or attrs["ceil_mode"]:
        raise call.refusal(f"attributes p = {order}, dilations = {attrs['dilation']}", "p of 1 or 2, dilations of 1")
    powers = call.step("abs", call.x, "power") if order == 1 else _squares(call)
    zeros = call.step("pad", powers.outputs, "padded", pads=_pairs(attrs))
    none = (0,) * len(kernel)
    attrs = {**attrs, "padding": none, "padding_end": none, "count_include_pad": True}
    mean = call.step("avg_pool", zeros.outputs, "mean", **attrs)
    window = {"scale": np.asarray(prod(kernel), np.float32)}
    steps = [powers, zeros, mean]
    if order == 1:
        return [*steps, call.node("affine", params=window, inputs=mean.outputs)]
    total = call.step("affine", mean.outputs, "sum", window)
    return [*steps, total, call.node("sqrt", inputs=total.outputs)]


def _squares(call: Call) -> Node:
    return call.step("power", call.x, "power", power=2.0)


def _pairs(attrs: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return ((0, 0), (0, 0), *zip(attrs["padding"], attrs["padding_end"], strict=True))


@converter("GlobalMaxPool")
def global_max_pool(call: Call) -> Node:
    """One to three spatial axes."""
    return call.node("max_pool", {"kernel": None}, inputs=call.x)


@converter("GlobalAveragePool")
def global_average_pool(call: Call) -> Node:
    """One to three spatial axes."""
    return call.node("avg_pool", {"kernel": None}, inputs=call.x)


@converter("GlobalLpPool", since=2)
def global_lp_pool(call: Call) -> list[Node]:
    """Of order 1 and 2."""
    order, axes = call.attr("p", 2), tuple(range(2, call.rank()))
    if order not in (1, 2):
        raise call.refusal(f"attribute p = {order}", "1 or 2")
    steps = [call.step("reduce", call.x, "sum", kind="asum" if order == 1 else "sumsq", axes=axes)]
    if order == 2:
        steps.append(call.step("sqrt", steps[-1].outputs, "root"))
    return [*steps, call.node("unsqueeze", {"axes": axes}, inputs=steps[-1].outputs)]
