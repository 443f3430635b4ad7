"""Convolution, Deconvolution, InnerProduct: the layers with a weight matrix."""

from __future__ import annotations

from math import prod
from typing import Any

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from .base import MANY, LayerContext, Param, Shape, Tensors, four_pads, register_layer, unsupported

DEPTHWISE = ("DepthwiseConvolution", "ConvolutionDepthwise", "DepthwiseConv")


def geometry(ctx: LayerContext) -> tuple[list[int], list[int], list[int], list[int]]:
    """kernel, stride, pad, dilation: one number for each spatial axis; `end_pads` has the padding behind it."""
    param, count = ctx.param, len(plane(ctx))
    kernel = _per_axis(ctx, param, "kernel_size", "kernel", count, None)
    stride = _per_axis(ctx, param, "stride", "stride", count, 1)
    pad = _per_axis(ctx, param, "pad", "pad", count, 0)
    sides = four_pads(param)
    if sides is not None:
        if any(pad) or count != 2 or ctx.layer.type == "Deconvolution":
            raise unsupported(ctx, "pad_t, pad_b, pad_l, pad_r", "them in a convolution on two axes, or pad")
        pad = sides[0]
    hole = "hole" if param.hole or param.HasField("hole_h") else "dilation"  # DeepLab's older name
    dilation = _per_axis(ctx, param, hole, "hole" if hole == "hole" else "", count, 1)
    for name, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ModelError(f"{ctx.where}: {name} {values}; wanted at least 1")
    return kernel, stride, pad, dilation


def end_pads(ctx: LayerContext, pad: list[int]) -> list[int]:
    """The padding behind each spatial axis where `pad` is the one before it."""
    sides = four_pads(ctx.param)
    return pad if sides is None else sides[1]


def _per_axis(ctx: LayerContext, param: Any, field: str, short: str, count: int, default: int | None) -> list[int]:
    given = list(getattr(param, field))
    if short and (param.HasField(f"{short}_h") or param.HasField(f"{short}_w")):
        if given or count != 2:
            raise ModelError(
                f"{ctx.where}: {field} {given} and {short}_h/{short}_w; wanted one of them, with 2 spatial axes"
            )
        return [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
    if not given and default is not None:
        return [default] * count
    if len(given) not in (1, count):
        raise ModelError(f"{ctx.where}: {field} {given}; wanted 1 or {count} numbers")
    return given * count if len(given) == 1 else given


def channel_axis(ctx: LayerContext) -> int:
    """The axis of the channels; those in front of it count images, those behind it are spatial."""
    return ctx.axis(ctx.param.axis)


def channels(ctx: LayerContext) -> int:
    return ctx.shape[channel_axis(ctx)]


def plane(ctx: LayerContext) -> Shape:
    """Lengths of the bottom's spatial axes."""
    return ctx.shape[channel_axis(ctx) + 1 :]


def _check(ctx: LayerContext) -> None:
    """Refuses what Caffe refuses, and bottoms of different shapes, which it overlooks."""
    param, groups = ctx.param, group(ctx)
    if len(ctx.layer.bottoms) != len(ctx.layer.tops):
        raise ModelError(
            f"{ctx.where}: {len(ctx.layer.bottoms)} bottoms and {len(ctx.layer.tops)} tops; wanted as many"
        )
    for blob, shape in zip(ctx.layer.bottoms, ctx.shapes, strict=True):
        if shape != ctx.shape:
            raise ShapeError(f"{ctx.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(ctx.shape)}")
    if channel_axis(ctx) == 0:
        raise unsupported(ctx, "channel axis 0, which mixes the images of a batch", "axis 1 or more")
    most = 3 if channel_axis(ctx) == 1 else 2
    if not 1 <= len(plane(ctx)) <= most:
        raise ShapeError(
            f"{ctx.where}: bottom '{ctx.layer.bottoms[0]}' has shape {list(ctx.shape)}; wanted 1 to {most} axes "
            f"behind that of the channels, {param.axis}"
        )
    if not param.num_output or not groups or param.num_output % groups or channels(ctx) % groups:
        raise ModelError(
            f"{ctx.where}: num_output {param.num_output}, {channels(ctx)} channels, group {groups} do not divide"
        )


def group(ctx: LayerContext) -> int:
    """The depthwise layers of forks have a group for each channel, whether the file says so or not."""
    given = int(ctx.param.group)
    return channels(ctx) if given == 1 and ctx.layer.type in DEPTHWISE else given


def conv_sizes(
    ctx: LayerContext, kernel: list[int], stride: list[int], pad: list[int], dilation: list[int]
) -> list[int]:
    """Spatial sizes of a convolution's top."""
    sizes = []
    for n, k, s, p, e, d in zip(plane(ctx), kernel, stride, pad, end_pads(ctx, pad), dilation, strict=True):
        sizes.append((n + p + e - (d * (k - 1) + 1)) // s + 1)
    if min(sizes) < 1:
        raise ModelError(f"{ctx.where}: its kernel does not fit into a bottom of shape {list(ctx.shape)}")
    return sizes


def conv_shape(ctx: LayerContext) -> list[Shape]:
    _check(ctx)
    return _tops(ctx, conv_sizes(ctx, *geometry(ctx)))


def _tops(ctx: LayerContext, sizes: list[int]) -> list[Shape]:
    images = ctx.shape[: channel_axis(ctx)]
    return [(*images, ctx.param.num_output, *sizes)] * len(ctx.layer.tops)


def deconv_shape(ctx: LayerContext) -> list[Shape]:
    _check(ctx)
    sizes = []
    for n, k, s, p, d in zip(plane(ctx), *geometry(ctx), strict=True):
        sizes.append(s * (n - 1) + d * (k - 1) + 1 - 2 * p)
    if min(sizes) < 1:
        raise ModelError(f"{ctx.where}: nothing is left of a bottom of shape {list(ctx.shape)}")
    return _tops(ctx, sizes)


def _with_bias(ctx: LayerContext, weight: Shape) -> list[Param]:
    param = ctx.param
    filler = param.weight_filler if param.HasField("weight_filler") else None
    found = [Param(weight, filler, "msra")]
    if param.bias_term:
        found.append(Param((param.num_output,), param.bias_filler if param.HasField("bias_filler") else None))
    return found


def conv_params(ctx: LayerContext) -> list[Param]:
    param = ctx.param
    return _with_bias(ctx, (param.num_output, channels(ctx) // group(ctx), *geometry(ctx)[0]))


def deconv_params(ctx: LayerContext) -> list[Param]:
    param = ctx.param
    return _with_bias(ctx, (channels(ctx), param.num_output // group(ctx), *geometry(ctx)[0]))


def _emit_conv(op: str, ctx: LayerContext, out: OnnxWriter, tensors: Tensors, top: Shape) -> None:
    """One node for each pair of bottom and top, all with the same weights; tops have the shape `top`."""
    kernel, stride, pad, dilation = geometry(ctx)
    ends, layer, behind = end_pads(ctx, pad), ctx.layer, channel_axis(ctx) - 1
    if behind:  # [N, B, C, h, w] -> [N, C, B, h, w], along which the kernel has one tap
        kernel, stride, pad, ends, dilation = [1, *kernel], [1, *stride], [0, *pad], [0, *ends], [1, *dilation]
        tensors = [tensors[0].reshape(*tensors[0].shape[:2], *kernel), *tensors[1:]]
    weights = out.weights(layer, tensors)
    for index, (value, written) in enumerate(zip(layer.inputs, layer.outputs, strict=True)):
        suffix = str(index) if index else ""
        if behind:
            value = _channels_first(ctx, out, value, f"{index}/before")
        inner = out.value(f"{written}@turned") if behind else written
        out.node(
            op, layer, [value, *weights], [inner], suffix=suffix,
            kernel_shape=kernel, strides=stride, pads=pad + ends, dilations=dilation, group=group(ctx),
        )  # fmt: skip
        if behind:
            _channels_back(ctx, out, inner, written, top, f"{index}/after")


def _turn(ctx: LayerContext) -> list[int]:
    """Exchanges the axis of the channels and the one before it, which all between batch and channels have become."""
    return [0, 2, 1, *range(3, 3 + len(plane(ctx)))]


def _channels_first(ctx: LayerContext, out: OnnxWriter, value: str, suffix: str) -> str:
    if channel_axis(ctx) > 2:
        between = prod(ctx.shape[1 : channel_axis(ctx)])
        shape = out.constant(f"{ctx.layer.name}/{suffix}/shape", [0, between, channels(ctx), *plane(ctx)])
        value = out.helper("Reshape", ctx.layer, f"{suffix}/merged", [value, shape])
    return out.helper("Transpose", ctx.layer, f"{suffix}/turned", [value], perm=_turn(ctx))


def _channels_back(ctx: LayerContext, out: OnnxWriter, value: str, written: str, top: Shape, suffix: str) -> None:
    layer = ctx.layer
    if channel_axis(ctx) == 2:
        out.node("Transpose", layer, [value], [written], suffix=f"{suffix}/turned", perm=_turn(ctx))
        return
    value = out.helper("Transpose", layer, f"{suffix}/turned", [value], perm=_turn(ctx))
    shape = out.constant(f"{layer.name}/{suffix}/shape", [0, *top[1:]])
    out.node("Reshape", layer, [value, shape], [written], suffix=f"{suffix}/apart")


def conv(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    _emit_conv("Conv", ctx, out, tensors, conv_shape(ctx)[0])


def deconv(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    _emit_conv("ConvTranspose", ctx, out, tensors, deconv_shape(ctx)[0])


def inner_shape(ctx: LayerContext) -> list[Shape]:
    return [(*ctx.shape[: ctx.axis(ctx.param.axis)], ctx.param.num_output)]


def inner_params(ctx: LayerContext) -> list[Param]:
    param = ctx.param
    if not param.num_output:
        raise ModelError(f"{ctx.where}: num_output is missing")
    inner = prod(ctx.shape[ctx.axis(param.axis) :])
    return _with_bias(ctx, (inner, param.num_output) if param.transpose else (param.num_output, inner))


def inner_product(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """Gemm, behind a Flatten where a bottom has more than two axes; behind the batch axis only, a function."""
    layer, param = ctx.layer, ctx.param
    axis, value = ctx.axis(param.axis), ctx.layer.inputs[0]
    if axis != 1:
        _inner_product_at(ctx, out, tensors, axis)
        return
    if len(ctx.shape) > 2:
        value = out.helper("Flatten", layer, "flatten", [value], axis=1)
    out.node("Gemm", layer, [value, *out.weights(layer, tensors)], transB=0 if param.transpose else 1)


def _inner_product_at(ctx: LayerContext, out: OnnxWriter, tensors: Tensors, axis: int) -> None:
    layer, value = ctx.layer, ctx.layer.inputs[0]
    if axis == 0:
        raise unsupported(ctx, "axis 0, which mixes the images of a batch", "axis 1 or more")
    if axis < len(ctx.shape) - 1:
        shape = out.constant(f"{layer.name}/flatten/shape", [0] * axis + [-1])
        value = out.helper("Reshape", layer, "flatten", [value, shape])
    columns = tensors[0] if ctx.param.transpose else tensors[0].T
    weights = out.weights(layer, [columns, *tensors[1:]])
    if len(weights) == 1:
        out.node("MatMul", layer, [value, *weights])
    else:
        out.call("InnerProduct", layer, [value, *weights])


def _holds_sizes(ctx: LayerContext) -> bool:
    return channel_axis(ctx) > 2


for _name in ("Convolution", *DEPTHWISE):
    register_layer(
        _name, conv, shape=conv_shape, params=conv_params, settings="convolution_param",
        bottoms=(1, MANY), tops=(1, MANY), bakes_size=_holds_sizes,
    )  # fmt: skip
register_layer(
    "Deconvolution", deconv, shape=deconv_shape, params=deconv_params, settings="convolution_param",
    bottoms=(1, MANY), tops=(1, MANY), bakes_size=_holds_sizes,
)  # fmt: skip
register_layer("InnerProduct", inner_product, shape=inner_shape, params=inner_params, settings="inner_product_param")
