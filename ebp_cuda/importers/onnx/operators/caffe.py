"""Converters of the functions that the Caffe importer writes: a layer is read as what it is, its body is ignored."""

from __future__ import annotations

from typing import Any

from ....errors import UnsupportedError
from ....graph import Node
from ..call import Call, converter
from .layers import geometry

ALL_AXES = tuple(f"caffe.ArgMax{name}" for name in ("Indices", "Both"))
ONE_AXIS = tuple(f"caffe.ArgMaxAlong{name}" for name in ("Indices", "Values"))


def _attrs(call: Call, *names: str) -> dict[str, Any]:
    return {name: call.attr(name) for name in names}


@converter("caffe.LRN")
def lrn_within(call: Call) -> Node:
    attrs = {"size": call.attr("local_size"), "region": "within"}
    return call.node("lrn", {**attrs, **_attrs(call, "alpha", "beta", "k")})


@converter("caffe.Scale")
def scale(call: Call) -> Node:
    return call.node("affine", params={"scale": call.required(1, "scale"), "shift": call.required(2, "shift")})


@converter("caffe.Power")
def power(call: Call) -> Node:
    return call.node("power", _attrs(call, "power", "scale", "shift"))


@converter("caffe.Exp")
def exp(call: Call) -> Node:
    return call.node("exp", _attrs(call, "scale", "shift"))


@converter("caffe.Log")
def log(call: Call) -> Node:
    return call.node("log", _attrs(call, "scale", "shift", "factor"))


@converter("caffe.Swish")
def swish(call: Call) -> Node:
    return call.node("silu", _attrs(call, "beta"))


@converter("caffe.Threshold")
def threshold(call: Call) -> Node:
    return call.node("threshold", _attrs(call, "threshold"))


@converter(*(f"caffe.{name}" for name in ("Eltwise", *(f"Eltwise{n}" for n in range(3, 65)))))
def eltwise(call: Call) -> Node:
    coefficients = tuple(call.attr("coeff"))
    if len(call.activations) != len(coefficients):
        raise UnsupportedError(f"{call.where}: a weighted sum with a constant; wanted {len(coefficients)} activations")
    return call.node("sum", {"coefficients": coefficients})


@converter("caffe.Pooling")
def average_pool(call: Call) -> Node:
    """Rounded up. Without padding, Caffe keeps a last window that lies outside, and divides 0 by 0 there."""
    kernel = tuple(call.attr("kernel_shape"))
    attrs = {**geometry(call, kernel), "kernel": kernel, "ceil_mode": True, "count_include_pad": True}
    return call.node("avg_pool", {**attrs, "drops_outside": any(attrs["padding"])})


@converter("caffe.PoolingMask")
def pooling_mask(call: Call) -> Node:
    return call.node("identity", inputs=call.inputs[:1])


@converter("caffe.MVN", "caffe.MVNMean")
def mvn(call: Call) -> Node:
    return call.node("mvn", {"axes": tuple(call.attr("axes")), "eps": call.attr("eps")})


@converter("caffe.Normalize")
def normalize(call: Call) -> Node:
    attrs = {"axes": tuple(call.attr("axes")), "eps": call.attr("eps")}
    return call.node("normalize", attrs, {"scale": call.required(2, "scale")})


@converter(*(f"caffe.Reduction{name}" for name in ("SUM", "MEAN", "ASUM", "SUMSQ")))
def reduction(call: Call) -> Node:
    kind = call.proto.op_type.removeprefix("Reduction").lower()
    return call.node("reduce", {"kind": kind, "axes": tuple(call.attr("axes")), "coefficient": call.attr("coeff")})


@converter(*ALL_AXES, *ONE_AXIS)
def arg_max(call: Call) -> Node:
    kind = call.proto.op_type.removeprefix("ArgMax")
    along = kind.startswith("Along")
    attrs = {"axis": call.attr("axis") if along else None, "k": call.attr("top_k")}
    return call.node("arg_max", {**attrs, "gives": kind.removeprefix("Along").lower()})


@converter("caffe.Embed")
def embed(call: Call) -> Node:
    return call.node("embed", params={"weight": call.required(1, "weight"), "bias": call.required(2, "bias")})


@converter("caffe.BatchReindex")
def batch_reindex(call: Call) -> Node:
    raise UnsupportedError(f"{call.where}: it exchanges the images of a batch; wanted layers that keep them apart")


@converter("caffe.Crop")
def crop(call: Call) -> Node:
    return call.node("crop", {"axis": call.attr("axis"), "offsets": tuple(call.attr("offset"))})


@converter("caffe.ExpandLike")
def expand_like(call: Call) -> Node:
    return call.node("expand")


@converter("caffe.Upsample", "caffe.UpsampleTo")
def upsample(call: Call) -> Node:
    return call.node("unpool", {"size": call.attr("size"), "scale": call.attr("scale"), "less": call.attr("pad_out")})


@converter("caffe.Interp", "caffe.InterpTo", "caffe.InterpLike")
def interp(call: Call) -> Node:
    attrs: dict[str, Any] = {"mode": "linear", "align_corners": True}
    if call.proto.op_type == "InterpTo":
        attrs["size"] = (call.attr("height"), call.attr("width"))
    elif call.proto.op_type == "Interp":
        attrs |= {"zoom": call.attr("zoom_factor"), "shrink": call.attr("shrink_factor")}
    return call.node("resize", attrs)
