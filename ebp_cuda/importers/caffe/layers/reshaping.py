"""Flatten, Reshape, Squeeze, Reorg."""

from __future__ import annotations

from math import prod

from ....errors import ModelError
from ..writer import OnnxWriter
from .base import LayerContext, Shape, Tensors, register_layer


def flatten_axes(ctx: LayerContext) -> tuple[int, int]:
    """The first axis that is flattened, and the one behind the last."""
    param = ctx.param
    start, end = ctx.axis(param.axis), ctx.axis(param.end_axis) + 1
    if start >= end:
        raise ModelError(f"{ctx.where}: axis {param.axis} lies behind end_axis {param.end_axis}")
    return start, end


def flatten_shape(ctx: LayerContext) -> list[Shape]:
    start, end = flatten_axes(ctx)
    return [(*ctx.shape[:start], prod(ctx.shape[start:end]), *ctx.shape[end:])]


def flatten(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    start, end = flatten_axes(ctx)
    if start == 1 and end == len(ctx.shape):
        out.node("Flatten", ctx.layer, axis=1)
    else:
        _reshape(ctx, out, [*[0] * start, -1, *ctx.shape[end:]])


def reshape_target(ctx: LayerContext) -> list[int]:
    """Caffe's reshape in ONNX's terms: a length for each axis of the top, 0 copies the bottom's, -1 is what is left."""
    param, rank = ctx.param, len(ctx.shape)
    start = param.axis if param.axis >= 0 else rank + param.axis + 1
    end = rank if param.num_axes == -1 else start + param.num_axes
    if not 0 <= start <= end <= rank:
        raise ModelError(f"{ctx.where}: axis {param.axis}, num_axes {param.num_axes}, bottom {list(ctx.shape)}")
    dims = [int(n) for n in param.shape.dim]
    for index, dim in enumerate(dims):
        if dim < -1 or (dim == 0 and start + index >= rank):
            raise ModelError(f"{ctx.where}: dim {dim} at place {index} of its shape; bottom {list(ctx.shape)}")
    if dims.count(-1) > 1:
        raise ModelError(f"{ctx.where}: shape {dims} has more than one -1")
    return [*[0] * start, *dims, *ctx.shape[end:]]


def reshape_shape(ctx: LayerContext) -> list[Shape]:
    target, total = reshape_target(ctx), prod(ctx.shape)
    dims = [ctx.shape[index] if dim == 0 else dim for index, dim in enumerate(target)]
    if -1 in dims:
        known = prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = total // known if known else 0
    if prod(dims) != total:
        raise ModelError(f"{ctx.where}: shape {target} does not hold the {total} numbers of bottom {list(ctx.shape)}")
    return [tuple(dims)]


def reshape(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    _reshape(ctx, out, reshape_target(ctx))


def _reshape(ctx: LayerContext, out: OnnxWriter, target: list[int]) -> None:
    shape = out.constant(f"{ctx.layer.name}/shape", target)
    out.node("Reshape", ctx.layer, [ctx.layer.inputs[0], shape])


def squeezed_axes(ctx: LayerContext) -> list[int]:
    axes = sorted({ctx.axis(axis) for axis in ctx.param.axis}) or [i for i, n in enumerate(ctx.shape) if n == 1]
    if any(ctx.shape[axis] != 1 for axis in axes):
        raise ModelError(f"{ctx.where}: axes {axes} of a bottom of shape {list(ctx.shape)}; wanted axes of length 1")
    return axes


def squeeze_shape(ctx: LayerContext) -> list[Shape]:
    axes = squeezed_axes(ctx)
    return [tuple(n for axis, n in enumerate(ctx.shape) if axis not in axes)]


def squeeze(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    axes = out.constant(f"{ctx.layer.name}/axes", squeezed_axes(ctx))
    out.node("Squeeze", ctx.layer, [*ctx.layer.inputs, axes])


def reorg_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(4)
    n, c, h, w = ctx.shape
    step = ctx.param.stride
    if step < 1 or c % step**2 or (not ctx.param.reverse and (h % step or w % step)):
        raise ModelError(f"{ctx.where}: stride {step} does not divide a bottom of shape {list(ctx.shape)}")
    return [(n, c // step**2, h * step, w * step) if ctx.param.reverse else (n, c * step**2, h // step, w // step)]


def reorg(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """YOLO's exchange of places for channels. Forwards, as in Darknet, it counts the bottom's numbers as if it had
    the shape of a reversed top, whatever its own."""
    layer, step = ctx.layer, ctx.param.stride
    _, c, h, w = ctx.shape
    channels = c // step**2
    if ctx.param.reverse:
        view, perm, inside = [0, step, step, channels, h, w], [0, 3, 4, 1, 5, 2], reorg_shape(ctx)[0]
    else:
        view, perm, inside = [0, channels, h, step, w, step], [0, 3, 5, 1, 2, 4], reorg_shape(ctx)[0]
    split = out.helper("Reshape", layer, "split", [layer.inputs[0], out.constant(f"{layer.name}/view", view)])
    moved = out.helper("Transpose", layer, "moved", [split], perm=perm)
    out.node("Reshape", layer, [moved, out.constant(f"{layer.name}/shape", [0, *inside[1:]])])


register_layer(
    "Squeeze", squeeze, shape=squeeze_shape, settings="squeeze_param",
    bakes_batch=lambda ctx: 0 in squeezed_axes(ctx), bakes_size=lambda ctx: max(squeezed_axes(ctx), default=0) > 1,
)  # fmt: skip
register_layer("Reorg", reorg, shape=reorg_shape, settings="reorg_param", bakes_size=lambda ctx: True)
register_layer(
    "Flatten", flatten, shape=flatten_shape, settings="flatten_param",
    bakes_size=lambda ctx: flatten_axes(ctx)[1] < len(ctx.shape),
)  # fmt: skip
register_layer(
    "Reshape", reshape, shape=reshape_shape, settings="reshape_param",
    bakes_size=lambda ctx: ctx.param.num_axes != -1,
)  # fmt: skip
