"""Layers that move, copy or pick numbers: Permute, ShuffleChannel, Tile, Crop, ArgMax, Embed, BatchReindex, Im2col."""

from __future__ import annotations

import numpy as np

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from . import convolution
from .base import MAX_CONSTANT, Param, Shape, Site, Tensors, filler, kind, unsupported


def permutation(site: Site) -> list[int]:
    order = list(site.param.order)
    rank = len(site.shape)
    if len(set(order)) != len(order) or any(axis >= rank for axis in order):
        raise ModelError(f"{site.where}: order {order} of the axes of {list(site.shape)}")
    return order + [axis for axis in range(rank) if axis not in order]


def permute_shape(site: Site) -> list[Shape]:
    return [tuple(site.shape[axis] for axis in permutation(site))]


def permute(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Transpose", site.layer, perm=permutation(site))


def shuffle_shape(site: Site) -> list[Shape]:
    site.rank(2, 3, 4, 5)
    if not site.param.group or site.shape[1] % site.param.group:
        raise ModelError(f"{site.where}: group {site.param.group} does not divide {site.shape[1]} channels")
    return [site.shape]


def shuffle(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    channels, group = site.shape[1], site.param.group
    _limit(site, channels)
    order = np.arange(channels).reshape(group, -1).T.ravel()
    indices = out.constant(f"{site.layer.name}/indices", order)
    out.node("Gather", site.layer, [*site.layer.inputs, indices], axis=1)


def _limit(site: Site, count: int) -> None:
    if count > MAX_CONSTANT:
        raise unsupported(site, f"a constant of {count} numbers", f"at most {MAX_CONSTANT}")


def tile_shape(site: Site) -> list[Shape]:
    axis, tiles = site.axis(site.param.axis), site.param.tiles
    if tiles < 1:
        raise ModelError(f"{site.where}: tiles {tiles}; wanted at least 1")
    return [(*site.shape[:axis], site.shape[axis] * tiles, *site.shape[axis + 1 :])]


def tile(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    axis = site.axis(site.param.axis)
    repeats = [site.param.tiles if i == axis else 1 for i in range(len(site.shape))]
    out.node("Tile", site.layer, [*site.layer.inputs, out.constant(f"{site.layer.name}/repeats", repeats)])


def crop_offsets(site: Site) -> tuple[int, list[int]]:
    """The first axis that is cropped, and where the crop starts on it and on those behind."""
    axis, given = site.axis(site.param.axis), list(site.param.offset)
    count = len(site.shape) - axis
    if len(given) not in (0, 1, count):
        raise ModelError(f"{site.where}: {len(given)} offsets; wanted 1 or {count}")
    return axis, given * count if len(given) == 1 else given or [0] * count


def crop_shape(site: Site) -> list[Shape]:
    like = site.shapes[1]
    axis, offsets = crop_offsets(site)
    fits = len(like) == len(site.shape) and all(
        offset + size <= length for offset, size, length in zip(offsets, like[axis:], site.shape[axis:], strict=True)
    )
    if not fits:
        raise ShapeError(f"{site.where}: offsets {offsets} and size {list(like)} reach out of {list(site.shape)}")
    return [(*site.shape[:axis], *like[axis:])]


def crop(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    axis, offsets = crop_offsets(site)
    name = site.layer.name
    starts = out.constant(f"{name}/offset", offsets)
    axes = out.constant(f"{name}/axes", range(axis, len(site.shape)))
    out.call("Crop", site.layer, [*site.layer.inputs, starts, axes], axis=axis, offset=offsets)


def arg_max_shape(site: Site) -> list[Shape]:
    site.rank(1, 2, 3, 4, 5)
    param = site.param
    if param.HasField("axis"):
        axis = site.axis(param.axis)
        shape, length = (*site.shape[:axis], param.top_k, *site.shape[axis + 1 :]), site.shape[axis]
    else:
        length = int(np.prod([int(n) for n in site.shape[1:]], dtype=object))
        ones = (1,) * (max(len(site.shape), 3) - 3)
        shape = (site.shape[0], 2 if param.out_max_val else 1, param.top_k, *ones)
    if not 1 <= param.top_k <= length:
        raise ModelError(f"{site.where}: top_k {param.top_k} of {length} numbers")
    return [shape]


def arg_max(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    param, name = site.param, site.layer.name
    along = site.axis(param.axis) if param.HasField("axis") else None
    gives = "indices" if not param.out_max_val else "both" if along is None else "values"
    axis = 1 if along is None else along
    inputs = [out.constant(f"{name}/axis", [axis]), out.constant(f"{name}/top_k", [param.top_k])]
    if along is None:
        inputs.append(out.constant(f"{name}/shape", [0, 1, *arg_max_shape(site)[0][2:]]))
    out.call(
        f"ArgMax{'' if along is None else 'Along'}{gives.capitalize()}", site.layer, [*site.layer.inputs, *inputs],
        axis=axis, top_k=param.top_k,
    )  # fmt: skip


def embed_shape(site: Site) -> list[Shape]:
    if not site.param.num_output or not site.param.input_dim:
        raise ModelError(f"{site.where}: num_output {site.param.num_output}, input_dim {site.param.input_dim}")
    return [(*site.shape, site.param.num_output)]


def embed_params(site: Site) -> list[Param]:
    param = site.param
    weight = Param((param.input_dim, param.num_output), filler(param, "weight_filler"), "msra")
    return [weight, Param((param.num_output,), filler(param, "bias_filler"))][: 1 + param.bias_term]


def embed(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    bias = tensors[1] if len(tensors) > 1 else np.zeros(site.param.num_output)
    out.call("Embed", site.layer, [*site.layer.inputs, *out.weights(site.layer, [tensors[0], bias])])


def reindex_shape(site: Site) -> list[Shape]:
    site.rank(1, 2, 3, 4, 5)
    if len(site.shapes[1]) != 1:
        raise ShapeError(f"{site.where}: indices of shape {list(site.shapes[1])}; wanted one axis")
    return [(site.shapes[1][0], *site.shape[1:])]


def reindex(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.call("BatchReindex", site.layer)


def im2col(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """A grouped convolution whose kernels are single ones: every tap of the window becomes a channel."""
    kernel, stride, pad, dilation = convolution.geometry(site)
    taps = int(np.prod(kernel, dtype=object))
    _limit(site, site.shape[1] * taps * taps)
    weight = np.tile(np.eye(taps).reshape(taps, 1, *kernel), (site.shape[1], *[1] * (len(kernel) + 1)))
    out.node(
        "Conv", site.layer, [*site.layer.inputs, *out.weights(site.layer, [weight])],
        kernel_shape=kernel, strides=stride, pads=pad + convolution.end_pads(site, pad), dilations=dilation,
        group=site.shape[1],
    )  # fmt: skip


def im2col_shape(site: Site) -> list[Shape]:
    site.rank(4)
    if site.axis(site.param.axis) != 1:
        raise unsupported(site, f"channel axis {site.param.axis}", "1")
    kernel, stride, pad, dilation = convolution.geometry(site)
    sizes = convolution.conv_sizes(site, kernel, stride, pad, dilation)
    return [(site.shape[0], site.shape[1] * kernel[0] * kernel[1], *sizes)]


kind("Permute", permute, shape=permute_shape, settings="permute_param")
kind("ShuffleChannel", shuffle, shape=shuffle_shape, settings="shuffle_channel_param")
kind("Tile", tile, shape=tile_shape, settings="tile_param")
kind("Crop", crop, shape=crop_shape, settings="crop_param", bottoms=(2, 2))
kind("ArgMax", arg_max, shape=arg_max_shape, settings="argmax_param")
kind("Embed", embed, shape=embed_shape, params=embed_params, settings="embed_param")
kind("BatchReindex", reindex, shape=reindex_shape, bottoms=(2, 2))
kind("Im2col", im2col, shape=im2col_shape, settings="convolution_param")
