"""Layers that move, copy or pick numbers: Permute, ShuffleChannel, Tile, Crop, ArgMax, Embed, BatchReindex, Im2col."""

from __future__ import annotations

import numpy as np

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from . import convolution
from .base import MAX_CONSTANT, LayerContext, Param, Shape, Tensors, filler, register_layer, unsupported


def permutation(ctx: LayerContext) -> list[int]:
    order = list(ctx.param.order)
    rank = len(ctx.shape)
    if len(set(order)) != len(order) or any(axis >= rank for axis in order):
        raise ModelError(f"{ctx.where}: order {order} of the axes of {list(ctx.shape)}")
    return order + [axis for axis in range(rank) if axis not in order]


def permute_shape(ctx: LayerContext) -> list[Shape]:
    return [tuple(ctx.shape[axis] for axis in permutation(ctx))]


def permute(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Transpose", ctx.layer, perm=permutation(ctx))


def shuffle_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(2, 3, 4, 5)
    if not ctx.param.group or ctx.shape[1] % ctx.param.group:
        raise ModelError(f"{ctx.where}: group {ctx.param.group} does not divide {ctx.shape[1]} channels")
    return [ctx.shape]


def shuffle(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    channels, group = ctx.shape[1], ctx.param.group
    _limit(ctx, channels)
    order = np.arange(channels).reshape(group, -1).T.ravel()
    indices = out.constant(f"{ctx.layer.name}/indices", order)
    out.node("Gather", ctx.layer, [*ctx.layer.inputs, indices], axis=1)


def _limit(ctx: LayerContext, count: int) -> None:
    if count > MAX_CONSTANT:
        raise unsupported(ctx, f"a constant of {count} numbers", f"at most {MAX_CONSTANT}")


def tile_shape(ctx: LayerContext) -> list[Shape]:
    axis, tiles = ctx.axis(ctx.param.axis), ctx.param.tiles
    if tiles < 1:
        raise ModelError(f"{ctx.where}: tiles {tiles}; wanted at least 1")
    return [(*ctx.shape[:axis], ctx.shape[axis] * tiles, *ctx.shape[axis + 1 :])]


def tile(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    axis = ctx.axis(ctx.param.axis)
    repeats = [ctx.param.tiles if i == axis else 1 for i in range(len(ctx.shape))]
    out.node("Tile", ctx.layer, [*ctx.layer.inputs, out.constant(f"{ctx.layer.name}/repeats", repeats)])


def crop_offsets(ctx: LayerContext) -> tuple[int, list[int]]:
    """The first axis that is cropped, and where the crop starts on it and on those behind."""
    axis, given = ctx.axis(ctx.param.axis), list(ctx.param.offset)
    count = len(ctx.shape) - axis
    if len(given) not in (0, 1, count):
        raise ModelError(f"{ctx.where}: {len(given)} offsets; wanted 1 or {count}")
    return axis, given * count if len(given) == 1 else given or [0] * count


def crop_shape(ctx: LayerContext) -> list[Shape]:
    like = ctx.shapes[1]
    axis, offsets = crop_offsets(ctx)
    fits = len(like) == len(ctx.shape) and all(
        offset + size <= length for offset, size, length in zip(offsets, like[axis:], ctx.shape[axis:], strict=True)
    )
    if not fits:
        raise ShapeError(f"{ctx.where}: offsets {offsets} and size {list(like)} reach out of {list(ctx.shape)}")
    return [(*ctx.shape[:axis], *like[axis:])]


def crop(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    axis, offsets = crop_offsets(ctx)
    name = ctx.layer.name
    starts = out.constant(f"{name}/offset", offsets)
    axes = out.constant(f"{name}/axes", range(axis, len(ctx.shape)))
    out.call("Crop", ctx.layer, [*ctx.layer.inputs, starts, axes], axis=axis, offset=offsets)


def arg_max_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(1, 2, 3, 4, 5)
    param = ctx.param
    if param.HasField("axis"):
        axis = ctx.axis(param.axis)
        shape, length = (*ctx.shape[:axis], param.top_k, *ctx.shape[axis + 1 :]), ctx.shape[axis]
    else:
        length = int(np.prod([int(n) for n in ctx.shape[1:]], dtype=object))
        ones = (1,) * (max(len(ctx.shape), 3) - 3)
        shape = (ctx.shape[0], 2 if param.out_max_val else 1, param.top_k, *ones)
    if not 1 <= param.top_k <= length:
        raise ModelError(f"{ctx.where}: top_k {param.top_k} of {length} numbers")
    return [shape]


def arg_max(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    param, name = ctx.param, ctx.layer.name
    along = ctx.axis(param.axis) if param.HasField("axis") else None
    gives = "indices" if not param.out_max_val else "both" if along is None else "values"
    axis = 1 if along is None else along
    inputs = [out.constant(f"{name}/axis", [axis]), out.constant(f"{name}/top_k", [param.top_k])]
    if along is None:
        inputs.append(out.constant(f"{name}/shape", [0, 1, *arg_max_shape(ctx)[0][2:]]))
    out.call(
        f"ArgMax{'' if along is None else 'Along'}{gives.capitalize()}", ctx.layer, [*ctx.layer.inputs, *inputs],
        axis=axis, top_k=param.top_k,
    )  # fmt: skip


def embed_shape(ctx: LayerContext) -> list[Shape]:
    if not ctx.param.num_output or not ctx.param.input_dim:
        raise ModelError(f"{ctx.where}: num_output {ctx.param.num_output}, input_dim {ctx.param.input_dim}")
    return [(*ctx.shape, ctx.param.num_output)]


def embed_params(ctx: LayerContext) -> list[Param]:
    param = ctx.param
    weight = Param((param.input_dim, param.num_output), filler(param, "weight_filler"), "msra")
    return [weight, Param((param.num_output,), filler(param, "bias_filler"))][: 1 + param.bias_term]


def embed(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    bias = tensors[1] if len(tensors) > 1 else np.zeros(ctx.param.num_output)
    out.call("Embed", ctx.layer, [*ctx.layer.inputs, *out.weights(ctx.layer, [tensors[0], bias])])


def reindex_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(1, 2, 3, 4, 5)
    if len(ctx.shapes[1]) != 1:
        raise ShapeError(f"{ctx.where}: indices of shape {list(ctx.shapes[1])}; wanted one axis")
    return [(ctx.shapes[1][0], *ctx.shape[1:])]


def reindex(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("BatchReindex", ctx.layer)


def im2col(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """A grouped convolution whose kernels are single ones: every tap of the window becomes a channel."""
    kernel, stride, pad, dilation = convolution.geometry(ctx)
    taps = int(np.prod(kernel, dtype=object))
    _limit(ctx, ctx.shape[1] * taps * taps)
    weight = np.tile(np.eye(taps).reshape(taps, 1, *kernel), (ctx.shape[1], *[1] * (len(kernel) + 1)))
    out.node(
        "Conv", ctx.layer, [*ctx.layer.inputs, *out.weights(ctx.layer, [weight])],
        kernel_shape=kernel, strides=stride, pads=pad + convolution.end_pads(ctx, pad), dilations=dilation,
        group=ctx.shape[1],
    )  # fmt: skip


def im2col_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(4)
    if ctx.axis(ctx.param.axis) != 1:
        raise unsupported(ctx, f"channel axis {ctx.param.axis}", "1")
    kernel, stride, pad, dilation = convolution.geometry(ctx)
    sizes = convolution.conv_sizes(ctx, kernel, stride, pad, dilation)
    return [(ctx.shape[0], ctx.shape[1] * kernel[0] * kernel[1], *sizes)]


register_layer("Permute", permute, shape=permute_shape, settings="permute_param")
register_layer("ShuffleChannel", shuffle, shape=shuffle_shape, settings="shuffle_channel_param")
register_layer("Tile", tile, shape=tile_shape, settings="tile_param")
register_layer("Crop", crop, shape=crop_shape, settings="crop_param", bottoms=(2, 2))
register_layer("ArgMax", arg_max, shape=arg_max_shape, settings="argmax_param")
register_layer("Embed", embed, shape=embed_shape, params=embed_params, settings="embed_param")
register_layer("BatchReindex", reindex, shape=reindex_shape, bottoms=(2, 2))
register_layer("Im2col", im2col, shape=im2col_shape, settings="convolution_param")
