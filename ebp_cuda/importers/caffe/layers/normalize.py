"""LRN, BatchNorm, BN, Scale, Bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....errors import ModelError, ShapeError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import LayerContext, Param, Shape, Tensors, filler, register_layer, unsupported


def lrn_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(4)
    return [ctx.shape]


def lrn(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    param = ctx.param
    if param.local_size % 2 == 0:
        raise ModelError(f"{ctx.where}: local_size {param.local_size}; wanted an odd number")
    if enum_name(param, "norm_region") == "ACROSS_CHANNELS":
        out.node("LRN", ctx.layer, alpha=param.alpha, beta=param.beta, bias=param.k, size=param.local_size)
        return
    # Caffe builds this region out of an average pooling and a power layer, and forgets k on the way: it is always 1
    out.call(
        "LRN", ctx.layer, alpha=param.alpha, beta=param.beta, k=1.0, local_size=param.local_size,
        norm_region="WITHIN_CHANNEL", kernel_shape=[param.local_size] * 2, pads=[param.local_size // 2] * 4,
    )  # fmt: skip


_SCALE_FIELDS = ("scale_bias", "scale_filler", "bias_filler")


def batch_norm_params(ctx: LayerContext) -> list[Param]:
    """mean, variance, and the factor by which both are divided. Caffe starts all three at 0; 0, 1, 1 can be run.

    NVIDIA's and Intel's Caffe add scale and bias, where the settings or the stored weights say so. The order of the
    five in old files of NVIDIA's is another one: the factor comes last.
    """
    ctx.rank(1, 2, 3, 4, 5)
    param, channels = ctx.param, (ctx.shape[1] if len(ctx.shape) > 1 else 1,)
    mean, variance, factor = Param(channels), Param(channels, default=1.0), Param((1,), default=1.0)
    scaled = len(ctx.layer.stored) == 5 if ctx.layer.stored else any(param.HasField(name) for name in _SCALE_FIELDS)
    if not scaled or (not ctx.layer.stored and param.HasField("scale_bias") and not param.scale_bias):
        return [mean, variance, factor]
    scale, bias = Param(channels, filler(param, "scale_filler"), 1.0), Param(channels, filler(param, "bias_filler"))
    statistics, plane = [mean, variance, factor], [scale, bias]
    found = plane + statistics if _factor_last(ctx) else statistics + plane
    return [replace(param, loose=True) for param in found]


def _factor_last(ctx: LayerContext) -> bool:
    return len(ctx.layer.stored) == 5 and ctx.layer.stored[4] == 1 and ctx.layer.stored[2] > 1


def batch_norm(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """By the stored statistics: `checking` has asked about those of the batch."""
    layer = ctx.layer
    if _factor_last(ctx):
        tensors = [*tensors[2:], *tensors[:2]]
    factor = float(tensors[2].ravel()[0])
    factor = 0.0 if factor == 0 else 1.0 / factor
    mean, variance = out.weights(layer, [array * np.float32(factor) for array in tensors[:2]])
    planes = tensors[3:] or [np.ones_like(tensors[0]), np.zeros_like(tensors[0])]
    scale, bias = (
        out.tensor(f"{layer.name}/{name}", np.asarray(array, np.float32))
        for name, array in zip(("scale", "bias"), planes, strict=True)
    )
    out.node("BatchNormalization", layer, [layer.inputs[0], scale, bias, mean, variance], epsilon=ctx.param.eps)


def bn_params(ctx: LayerContext) -> list[Param]:
    """SegNet's BN holds scale and shift; PSPNet's holds slope, bias, mean and variance."""
    ctx.rank(1, 2, 3, 4, 5)
    param = ctx.param
    shape = (1, ctx.shape[1] if len(ctx.shape) > 1 else 1, 1, 1)
    if _is_segnet(ctx):
        if enum_name(param, "bn_mode") != "INFERENCE":
            raise unsupported(ctx, "bn_mode LEARN, which takes the statistics of the batch", "INFERENCE")
        fillers = [("scale_filler", 1.0), ("shift_filler", 0.0)]
    else:
        fillers = [("slope_filler", 1.0), ("bias_filler", 0.0), ("", 0.0), ("", 1.0)]
    return [Param(shape, filler(param, name) if name else None, start, loose=True) for name, start in fillers]


def _is_segnet(ctx: LayerContext) -> bool:
    if ctx.layer.stored:
        return len(ctx.layer.stored) == 2
    return any(ctx.param.HasField(name) for name in ("bn_mode", "scale_filler", "shift_filler"))


def bn(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    layer = ctx.layer
    if _is_segnet(ctx):
        planes = [array.reshape(-1, *[1] * (len(ctx.shape) - 2)) for array in tensors]
        out.call("Scale", layer, [*layer.inputs, *out.weights(layer, planes)])
    else:
        weights = out.weights(layer, [array.ravel() for array in tensors])
        out.node("BatchNormalization", layer, [*layer.inputs, *weights], epsilon=ctx.param.eps)


def _covered(ctx: LayerContext) -> tuple[int, Shape]:
    """The axis at which a Scale or Bias starts and the shape of its parameter."""
    param = ctx.param
    axis = ctx.axis(param.axis)
    if len(ctx.shapes) > 1:
        other = ctx.shapes[1]
        if ctx.shape[axis : axis + len(other)] != other:
            raise ShapeError(
                f"{ctx.where}: bottom '{ctx.layer.bottoms[1]}' has shape {list(other)}, which is no part of "
                f"{list(ctx.shape)} from axis {axis} on"
            )
        return axis, other
    end = len(ctx.shape) if param.num_axes == -1 else axis + param.num_axes
    if end > len(ctx.shape):
        raise ModelError(f"{ctx.where}: axis {axis} and num_axes {param.num_axes} exceed shape {list(ctx.shape)}")
    return axis, ctx.shape[axis:end]


def scale_params(ctx: LayerContext) -> list[Param]:
    param, (_, shape) = ctx.param, _covered(ctx)
    found = [Param(shape, filler(param, "filler"), 1.0)] if len(ctx.shapes) == 1 else []
    return [*found, Param(shape, filler(param, "bias_filler"))] if param.bias_term else found


def covered_shape(ctx: LayerContext) -> list[Shape]:
    _covered(ctx)
    return [ctx.shape]


def bias_params(ctx: LayerContext) -> list[Param]:
    return [Param(_covered(ctx)[1], filler(ctx.param, "filler"))] if len(ctx.shapes) == 1 else []


def _broadcast(ctx: LayerContext, tensors: Tensors) -> list[np.ndarray]:
    axis, shape = _covered(ctx)
    behind = len(ctx.shape) - axis - len(shape)
    return [array.reshape(*shape, *[1] * behind) for array in tensors]


def _second(ctx: LayerContext, out: OnnxWriter) -> str:
    """The second bottom with axes behind its own, so that it broadcasts against the first."""
    axis, shape = _covered(ctx)
    axes = [*range(axis), *range(axis + len(shape), len(ctx.shape))]
    if not axes:
        return ctx.layer.inputs[1]
    constant = out.constant(f"{ctx.layer.name}/axes", axes)
    return out.helper("Unsqueeze", ctx.layer, "unsqueeze", [ctx.layer.inputs[1], constant])


def scale(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    if len(ctx.shapes) > 1:
        inputs = [ctx.layer.inputs[0], _second(ctx, out)]
        if not ctx.param.bias_term:
            out.node("Mul", ctx.layer, inputs)
            return
        product = out.helper("Mul", ctx.layer, "product", inputs)
        out.node("Add", ctx.layer, [product, *out.weights(ctx.layer, _broadcast(ctx, tensors))])
        return
    inputs = [*ctx.layer.inputs, *out.weights(ctx.layer, _broadcast(ctx, tensors))]
    if ctx.param.bias_term:
        out.call("Scale", ctx.layer, inputs)
    else:
        out.node("Mul", ctx.layer, inputs)


def bias(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    if len(ctx.shapes) > 1:
        other = _second(ctx, out)
        if ctx.shapes[1] != ctx.shape and ctx.layer.inputs[1] not in out.constant_values:
            value = out.value(f"{ctx.layer.outputs[0]}@expanded")
            out.call("ExpandLike", ctx.layer, [other, ctx.layer.inputs[0]], [value], suffix="expand")
            other = value
        out.node("Add", ctx.layer, [ctx.layer.inputs[0], other])
        return
    out.node("Add", ctx.layer, [*ctx.layer.inputs, *out.weights(ctx.layer, _broadcast(ctx, tensors))])


register_layer("LRN", lrn, shape=lrn_shape, settings="lrn_param")
register_layer("BatchNorm", batch_norm, params=batch_norm_params, settings="batch_norm_param")
register_layer("BN", bn, params=bn_params, settings="bn_param")
register_layer("Scale", scale, shape=covered_shape, params=scale_params, settings="scale_param", bottoms=(1, 2))
register_layer("Bias", bias, shape=covered_shape, params=bias_params, settings="bias_param", bottoms=(1, 2))
