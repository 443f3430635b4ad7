"""Layers with several bottoms or tops: Eltwise, Concat, Slice, Split."""

from __future__ import annotations

from itertools import pairwise

from ....errors import ModelError, ShapeError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import MANY, LayerContext, Shape, Tensors, register_layer


def eltwise_shape(ctx: LayerContext) -> list[Shape]:
    for blob, shape in zip(ctx.layer.bottoms, ctx.shapes, strict=True):
        if shape != ctx.shape:
            raise ShapeError(
                f"{ctx.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(ctx.shape)}, "
                f"the shape of '{ctx.layer.bottoms[0]}'"
            )
    return [ctx.shape]


def eltwise(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    operation, coeff = enum_name(ctx.param, "operation"), list(ctx.param.coeff)
    if coeff and (operation != "SUM" or len(coeff) != len(ctx.shapes)):
        raise ModelError(
            f"{ctx.where}: operation {operation} with {len(coeff)} coeff; wanted SUM with {len(ctx.shapes)}"
        )
    if operation == "PROD":
        _product(ctx, out)
    elif all(factor == 1 for factor in coeff):
        out.node({"SUM": "Sum", "MAX": "Max"}[operation], ctx.layer)
    else:
        out.weighted_sum(ctx.layer, coeff)


def _product(ctx: LayerContext, out: OnnxWriter) -> None:
    """ONNX multiplies two at a time."""
    layer = ctx.layer
    value = layer.inputs[0]
    for index, other in enumerate(layer.inputs[1:-1]):
        value = out.helper("Mul", layer, f"product{index}", [value, other])
    out.node("Mul", layer, [value, layer.inputs[-1]])


def concat_axis(ctx: LayerContext) -> int:
    param = ctx.param
    return int(param.concat_dim) if param.HasField("concat_dim") else ctx.axis(param.axis)


def concat_shape(ctx: LayerContext) -> list[Shape]:
    axis = concat_axis(ctx)
    total = 0
    for blob, shape in zip(ctx.layer.bottoms, ctx.shapes, strict=True):
        if len(shape) != len(ctx.shape) or shape[:axis] + shape[axis + 1 :] != ctx.shape[:axis] + ctx.shape[axis + 1 :]:
            raise ShapeError(
                f"{ctx.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(ctx.shape)} but for axis {axis}"
            )
        total += shape[axis]
    return [(*ctx.shape[:axis], total, *ctx.shape[axis + 1 :])]


def concat(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Concat", ctx.layer, axis=concat_axis(ctx))


def slice_axis(ctx: LayerContext) -> int:
    param = ctx.param
    return int(param.slice_dim) if param.HasField("slice_dim") else ctx.axis(param.axis)


def slice_sizes(ctx: LayerContext) -> list[int]:
    """Length of each top along the axis."""
    length, count, points = ctx.shape[slice_axis(ctx)], len(ctx.layer.tops), list(ctx.param.slice_point)
    if not points and length % count == 0:
        return [length // count] * count
    edges = [0, *points, length]
    sizes = [after - before for before, after in pairwise(edges)]
    if len(sizes) != count or min(sizes) < 1:
        raise ModelError(f"{ctx.where}: {count} tops and slice_point {points} do not divide {length}")
    return sizes


def slice_shape(ctx: LayerContext) -> list[Shape]:
    axis = slice_axis(ctx)
    return [(*ctx.shape[:axis], size, *ctx.shape[axis + 1 :]) for size in slice_sizes(ctx)]


def slice_(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    sizes = out.constant(f"{ctx.layer.name}/sizes", slice_sizes(ctx))
    out.node("Split", ctx.layer, [*ctx.layer.inputs, sizes], axis=slice_axis(ctx))


def split(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    for index, value in enumerate(ctx.layer.outputs):
        out.node("Identity", ctx.layer, outputs=[value], suffix=str(index) if index else "")


def axpy_shape(ctx: LayerContext) -> list[Shape]:
    factor, x, y = ctx.shapes
    if y != x or len(factor) not in (2, len(x)) or factor[:2] != x[:2] or any(n != 1 for n in factor[2:]):
        raise ShapeError(f"{ctx.where}: bottoms of shapes {[list(s) for s in ctx.shapes]}; wanted [N, C], x and x")
    return [x]


def axpy(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """a x + y with a factor a for every channel (SENet)."""
    layer = ctx.layer
    factor, x, y = layer.inputs
    missing = list(range(len(ctx.shapes[0]), len(ctx.shapes[1])))
    if missing:
        factor = out.helper("Unsqueeze", layer, "factor", [factor, out.constant(f"{layer.name}/axes", missing)])
    out.node("Add", layer, [out.helper("Mul", layer, "product", [x, factor]), y])


register_layer("Axpy", axpy, shape=axpy_shape, bottoms=(3, 3))
register_layer("Eltwise", eltwise, shape=eltwise_shape, settings="eltwise_param", bottoms=(2, MANY))
register_layer("Concat", concat, shape=concat_shape, settings="concat_param", bottoms=(1, MANY))
register_layer(
    "Slice", slice_, shape=slice_shape, settings="slice_param", tops=(1, MANY),
    bakes_size=lambda ctx: slice_axis(ctx) > 1, bakes_batch=lambda ctx: slice_axis(ctx) == 0,
)  # fmt: skip
register_layer("Split", split, tops=(1, MANY))
