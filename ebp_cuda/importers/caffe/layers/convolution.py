"""Convolution, Deconvolution, InnerProduct: the layers with a weight matrix."""

from __future__ import annotations

from math import prod
from typing import Any

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from .base import MANY, Param, Shape, Site, Tensors, four_pads, kind, unsupported

DEPTHWISE = ("DepthwiseConvolution", "ConvolutionDepthwise", "DepthwiseConv")


def geometry(site: Site) -> tuple[list[int], list[int], list[int], list[int]]:
    """kernel, stride, pad, dilation: one number for each spatial axis; `end_pads` has the padding behind it."""
    param, count = site.param, len(plane(site))
    kernel = _per_axis(site, param, "kernel_size", "kernel", count, None)
    stride = _per_axis(site, param, "stride", "stride", count, 1)
    pad = _per_axis(site, param, "pad", "pad", count, 0)
    sides = four_pads(param)
    if sides is not None:
        if any(pad) or count != 2 or site.layer.type == "Deconvolution":
            raise unsupported(site, "pad_t, pad_b, pad_l, pad_r", "them in a convolution on two axes, or pad")
        pad = sides[0]
    hole = "hole" if param.hole or param.HasField("hole_h") else "dilation"  # DeepLab's older name
    dilation = _per_axis(site, param, hole, "hole" if hole == "hole" else "", count, 1)
    for name, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ModelError(f"{site.where}: {name} {values}; wanted at least 1")
    return kernel, stride, pad, dilation


def end_pads(site: Site, pad: list[int]) -> list[int]:
    """The padding behind each spatial axis where `pad` is the one before it."""
    sides = four_pads(site.param)
    return pad if sides is None else sides[1]


def _per_axis(site: Site, param: Any, field: str, short: str, count: int, default: int | None) -> list[int]:
    given = list(getattr(param, field))
    if short and (param.HasField(f"{short}_h") or param.HasField(f"{short}_w")):
        if given or count != 2:
            raise ModelError(
                f"{site.where}: {field} {given} and {short}_h/{short}_w; wanted one of them, with 2 spatial axes"
            )
        return [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
    if not given and default is not None:
        return [default] * count
    if len(given) not in (1, count):
        raise ModelError(f"{site.where}: {field} {given}; wanted 1 or {count} numbers")
    return given * count if len(given) == 1 else given


def channel_axis(site: Site) -> int:
    """The axis of the channels; those in front of it count images, those behind it are spatial."""
    return site.axis(site.param.axis)


def channels(site: Site) -> int:
    return site.shape[channel_axis(site)]


def plane(site: Site) -> Shape:
    """Lengths of the bottom's spatial axes."""
    return site.shape[channel_axis(site) + 1 :]


def _check(site: Site) -> None:
    """Refuses what Caffe refuses, and bottoms of different shapes, which it overlooks."""
    param, groups = site.param, group(site)
    if len(site.layer.bottoms) != len(site.layer.tops):
        raise ModelError(
            f"{site.where}: {len(site.layer.bottoms)} bottoms and {len(site.layer.tops)} tops; wanted as many"
        )
    for blob, shape in zip(site.layer.bottoms, site.shapes, strict=True):
        if shape != site.shape:
            raise ShapeError(f"{site.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(site.shape)}")
    if channel_axis(site) == 0:
        raise unsupported(site, "channel axis 0, which mixes the images of a batch", "axis 1 or more")
    most = 3 if channel_axis(site) == 1 else 2
    if not 1 <= len(plane(site)) <= most:
        raise ShapeError(
            f"{site.where}: bottom '{site.layer.bottoms[0]}' has shape {list(site.shape)}; wanted 1 to {most} axes "
            f"behind that of the channels, {param.axis}"
        )
    if not param.num_output or not groups or param.num_output % groups or channels(site) % groups:
        raise ModelError(
            f"{site.where}: num_output {param.num_output}, {channels(site)} channels, group {groups} do not divide"
        )


def group(site: Site) -> int:
    """The depthwise layers of forks have a group for each channel, whether the file says so or not."""
    given = int(site.param.group)
    return channels(site) if given == 1 and site.layer.type in DEPTHWISE else given


def conv_sizes(site: Site, kernel: list[int], stride: list[int], pad: list[int], dilation: list[int]) -> list[int]:
    """Spatial sizes of a convolution's top."""
    sizes = []
    for n, k, s, p, e, d in zip(plane(site), kernel, stride, pad, end_pads(site, pad), dilation, strict=True):
        sizes.append((n + p + e - (d * (k - 1) + 1)) // s + 1)
    if min(sizes) < 1:
        raise ModelError(f"{site.where}: its kernel does not fit into a bottom of shape {list(site.shape)}")
    return sizes


def conv_shape(site: Site) -> list[Shape]:
    _check(site)
    return _tops(site, conv_sizes(site, *geometry(site)))


def _tops(site: Site, sizes: list[int]) -> list[Shape]:
    images = site.shape[: channel_axis(site)]
    return [(*images, site.param.num_output, *sizes)] * len(site.layer.tops)


def deconv_shape(site: Site) -> list[Shape]:
    _check(site)
    sizes = []
    for n, k, s, p, d in zip(plane(site), *geometry(site), strict=True):
        sizes.append(s * (n - 1) + d * (k - 1) + 1 - 2 * p)
    if min(sizes) < 1:
        raise ModelError(f"{site.where}: nothing is left of a bottom of shape {list(site.shape)}")
    return _tops(site, sizes)


def _with_bias(site: Site, weight: Shape) -> list[Param]:
    param = site.param
    filler = param.weight_filler if param.HasField("weight_filler") else None
    found = [Param(weight, filler, "msra")]
    if param.bias_term:
        found.append(Param((param.num_output,), param.bias_filler if param.HasField("bias_filler") else None))
    return found


def conv_params(site: Site) -> list[Param]:
    param = site.param
    return _with_bias(site, (param.num_output, channels(site) // group(site), *geometry(site)[0]))


def deconv_params(site: Site) -> list[Param]:
    param = site.param
    return _with_bias(site, (channels(site), param.num_output // group(site), *geometry(site)[0]))


def _emit_conv(op: str, site: Site, out: OnnxWriter, tensors: Tensors, top: Shape) -> None:
    """One node for each pair of bottom and top, all with the same weights; tops have the shape `top`."""
    kernel, stride, pad, dilation = geometry(site)
    ends, layer, behind = end_pads(site, pad), site.layer, channel_axis(site) - 1
    if behind:  # [N, B, C, h, w] -> [N, C, B, h, w], along which the kernel has one tap
        kernel, stride, pad, ends, dilation = [1, *kernel], [1, *stride], [0, *pad], [0, *ends], [1, *dilation]
        tensors = [tensors[0].reshape(*tensors[0].shape[:2], *kernel), *tensors[1:]]
    weights = out.weights(layer, tensors)
    for index, (value, written) in enumerate(zip(layer.inputs, layer.outputs, strict=True)):
        suffix = str(index) if index else ""
        if behind:
            value = _channels_first(site, out, value, f"{index}/before")
        inner = out.value(f"{written}@turned") if behind else written
        out.node(
            op, layer, [value, *weights], [inner], suffix=suffix,
            kernel_shape=kernel, strides=stride, pads=pad + ends, dilations=dilation, group=group(site),
        )  # fmt: skip
        if behind:
            _channels_back(site, out, inner, written, top, f"{index}/after")


def _turn(site: Site) -> list[int]:
    """Exchanges the axis of the channels and the one before it, which all between batch and channels have become."""
    return [0, 2, 1, *range(3, 3 + len(plane(site)))]


def _channels_first(site: Site, out: OnnxWriter, value: str, suffix: str) -> str:
    if channel_axis(site) > 2:
        between = prod(site.shape[1 : channel_axis(site)])
        shape = out.constant(f"{site.layer.name}/{suffix}/shape", [0, between, channels(site), *plane(site)])
        value = out.helper("Reshape", site.layer, f"{suffix}/merged", [value, shape])
    return out.helper("Transpose", site.layer, f"{suffix}/turned", [value], perm=_turn(site))


def _channels_back(site: Site, out: OnnxWriter, value: str, written: str, top: Shape, suffix: str) -> None:
    layer = site.layer
    if channel_axis(site) == 2:
        out.node("Transpose", layer, [value], [written], suffix=f"{suffix}/turned", perm=_turn(site))
        return
    value = out.helper("Transpose", layer, f"{suffix}/turned", [value], perm=_turn(site))
    shape = out.constant(f"{layer.name}/{suffix}/shape", [0, *top[1:]])
    out.node("Reshape", layer, [value, shape], [written], suffix=f"{suffix}/apart")


def conv(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    _emit_conv("Conv", site, out, tensors, conv_shape(site)[0])


def deconv(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    _emit_conv("ConvTranspose", site, out, tensors, deconv_shape(site)[0])


def inner_shape(site: Site) -> list[Shape]:
    return [(*site.shape[: site.axis(site.param.axis)], site.param.num_output)]


def inner_params(site: Site) -> list[Param]:
    param = site.param
    if not param.num_output:
        raise ModelError(f"{site.where}: num_output is missing")
    inner = prod(site.shape[site.axis(param.axis) :])
    return _with_bias(site, (inner, param.num_output) if param.transpose else (param.num_output, inner))


def inner_product(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """Gemm, behind a Flatten where a bottom has more than two axes; behind the batch axis only, a function."""
    layer, param = site.layer, site.param
    axis, value = site.axis(param.axis), site.layer.inputs[0]
    if axis != 1:
        _inner_product_at(site, out, tensors, axis)
        return
    if len(site.shape) > 2:
        value = out.helper("Flatten", layer, "flatten", [value], axis=1)
    out.node("Gemm", layer, [value, *out.weights(layer, tensors)], transB=0 if param.transpose else 1)


def _inner_product_at(site: Site, out: OnnxWriter, tensors: Tensors, axis: int) -> None:
    layer, value = site.layer, site.layer.inputs[0]
    if axis == 0:
        raise unsupported(site, "axis 0, which mixes the images of a batch", "axis 1 or more")
    if axis < len(site.shape) - 1:
        shape = out.constant(f"{layer.name}/flatten/shape", [0] * axis + [-1])
        value = out.helper("Reshape", layer, "flatten", [value, shape])
    columns = tensors[0] if site.param.transpose else tensors[0].T
    weights = out.weights(layer, [columns, *tensors[1:]])
    if len(weights) == 1:
        out.node("MatMul", layer, [value, *weights])
    else:
        out.call("InnerProduct", layer, [value, *weights])


def _holds_sizes(site: Site) -> bool:
    return channel_axis(site) > 2


for _name in ("Convolution", *DEPTHWISE):
    kind(
        _name, conv, shape=conv_shape, params=conv_params, settings="convolution_param",
        bottoms=(1, MANY), tops=(1, MANY), bakes_size=_holds_sizes,
    )  # fmt: skip
kind(
    "Deconvolution", deconv, shape=deconv_shape, params=deconv_params, settings="convolution_param",
    bottoms=(1, MANY), tops=(1, MANY), bakes_size=_holds_sizes,
)  # fmt: skip
kind("InnerProduct", inner_product, shape=inner_shape, params=inner_params, settings="inner_product_param")
