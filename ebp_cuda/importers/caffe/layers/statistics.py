"""Layers that sum over whole axes: Reduction, MVN, Normalize."""

from __future__ import annotations

from ....errors import ModelError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import LayerContext, Param, Shape, Tensors, filler, register_layer


def reduction_shape(ctx: LayerContext) -> list[Shape]:
    return [ctx.shape[: ctx.axis(ctx.param.axis)]]


def reduction(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    axis, operation = ctx.axis(ctx.param.axis), enum_name(ctx.param, "operation")
    axes = list(range(axis, len(ctx.shape)))
    inputs = [*ctx.layer.inputs, out.constant(f"{ctx.layer.name}/axes", axes)]
    out.call(f"Reduction{operation}", ctx.layer, inputs, axes=axes, coeff=ctx.param.coeff)


def mvn_axes(ctx: LayerContext) -> list[int]:
    ctx.rank(2, 3, 4)
    axes = list(range(1 if ctx.param.across_channels else 2, len(ctx.shape)))
    if not axes:
        raise ModelError(f"{ctx.where}: nothing to average in a bottom of shape {list(ctx.shape)}")
    return axes


def mvn(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    axes = mvn_axes(ctx)
    inputs = [*ctx.layer.inputs, out.constant(f"{ctx.layer.name}/axes", axes)]
    if ctx.param.normalize_variance:
        out.call("MVN", ctx.layer, inputs, axes=axes, eps=ctx.param.eps)
    else:
        out.call("MVNMean", ctx.layer, inputs, axes=axes)


def normalize_params(ctx: LayerContext) -> list[Param]:
    ctx.rank(2, 3, 4)
    shape = (1,) if ctx.param.channel_shared else (ctx.shape[1],)
    return [Param(shape, filler(ctx.param, "scale_filler"), 1.0, loose=True)]


def normalize(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """x / sqrt(sum x^2 + eps) * scale (SSD)."""
    layer, param = ctx.layer, ctx.param
    axes = list(range(1, len(ctx.shape))) if param.across_spatial else [1]
    weights = out.weights(layer, [tensors[0].reshape(-1, *[1] * (len(ctx.shape) - 2))])
    inputs = [*layer.inputs, out.constant(f"{layer.name}/axes", axes), *weights]
    out.call("Normalize", layer, inputs, axes=axes, eps=param.eps)


register_layer("Reduction", reduction, shape=reduction_shape, settings="reduction_param")
register_layer("MVN", mvn, shape=lambda ctx: [ctx.shape] if mvn_axes(ctx) else [], settings="mvn_param")
register_layer("Normalize", normalize, params=normalize_params, settings="norm_param")
