"""Pooling, with Caffe's own idea of where the last window lies."""

from __future__ import annotations

from math import prod
from typing import Any

from ....errors import ModelError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import LayerContext, Shape, Tensors, four_pads, register_layer, unsupported

LOWEST = -3.4028234663852886e38
"""What Caffe puts where a max pooling window holds no pixel at all (-FLT_MAX)."""


def geometry(ctx: LayerContext) -> tuple[list[int], list[int], list[int]]:
    """kernel, stride, pad as [h, w]; `four_pads` may have the padding behind. Raises ModelError on what Caffe
    refuses."""
    param, found = ctx.param, {}
    for short, field in (("kernel", "kernel_size"), ("stride", "stride"), ("pad", "pad")):
        pair = [param.HasField(f"{short}_h"), param.HasField(f"{short}_w")]
        if any(pair):
            if not all(pair) or param.HasField(field):
                raise ModelError(f"{ctx.where}: wanted {field}, or both {short}_h and {short}_w")
            found[short] = [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
        else:
            found[short] = [getattr(param, field)] * 2
    kernel, stride, pad = found["kernel"], found["stride"], found["pad"]
    sides = four_pads(param)
    if sides is not None and sides[0] == sides[1] and not any(pad):
        pad = sides[0]
    elif sides is not None:
        if any(pad) or rounds_up(ctx) or any(e >= k for e, k in zip(sides[1], kernel, strict=True)):
            raise unsupported(ctx, f"pad_t, pad_l {sides[0]}, pad_b, pad_r {sides[1]}", "pad, or ceil_mode: false")
        pad = sides[0]
    if min(kernel) < 1 or min(stride) < 1:
        raise ModelError(f"{ctx.where}: kernel_size {kernel}, stride {stride}; wanted at least 1")
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise ModelError(f"{ctx.where}: pad {pad} reaches the kernel's size {kernel}; wanted less")
    return kernel, stride, pad


def end_pads(ctx: LayerContext, pad: list[int]) -> list[int]:
    """The padding behind height and width where `pad` is the one before them."""
    sides = four_pads(ctx.param)
    return pad if sides is None else sides[1]


def rounds_up(ctx: LayerContext) -> bool:
    return enum_name(ctx.param, "round_mode") == "CEIL" and ctx.param.ceil_mode


def pool_shape(ctx: LayerContext) -> list[Shape]:
    ctx.rank(4)
    if ctx.param.global_pooling:
        sizes = [1, 1]
    else:
        kernel, stride, pad = geometry(ctx)
        sizes = []
        for n, k, s, p, e in zip(ctx.shape[2:], kernel, stride, pad, end_pads(ctx, pad), strict=True):
            sizes.append(_windows(n + e - p, k, s, p, any(pad), rounds_up(ctx)))
        if min(sizes) < 1:
            raise ModelError(f"{ctx.where}: kernel {kernel} does not fit into a bottom of shape {list(ctx.shape)}")
    return [(*ctx.shape[:2], *sizes)] * len(ctx.layer.tops)


def _windows(n: int, kernel: int, stride: int, pad: int, clip: bool, up: bool = True) -> int:
    span = n + 2 * pad - kernel
    size = (-(-span // stride) if up else span // stride) + 1
    # padding on either axis makes Caffe drop, on both, a last window that starts behind the image
    return size - 1 if clip and (size - 1) * stride >= n + pad else size


def end_padding(kernel: list[int], stride: list[int], pad: list[int]) -> list[int]:
    """Padding behind an axis that makes rounding down give Caffe's number of windows, whatever the axis' length.

    Rounding up is s - 1 more. The window that Caffe drops when there is padding would need k or more, so k - 1 is
    the bound.
    """
    ends = [p + s - 1 for s, p in zip(stride, pad, strict=True)]
    return [min(e, k - 1) for e, k in zip(ends, kernel, strict=True)] if any(pad) else ends


def pool(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    method = enum_name(ctx.param, "pool")
    if method == "STOCHASTIC":
        raise unsupported(ctx, "stochastic pooling", "pool MAX or AVE")
    if len(ctx.layer.tops) > 1 and method != "MAX":
        raise ModelError(f"{ctx.where}: two tops with pool {method}; only MAX has a mask")
    if ctx.param.global_pooling:
        if len(ctx.layer.tops) > 1:
            raise unsupported(ctx, "a mask of global pooling", "one top")
        out.node("GlobalMaxPool" if method == "MAX" else "GlobalAveragePool", ctx.layer)
    elif method == "MAX":
        _max_pool(ctx, out)
    else:
        _average_pool(ctx, out)


def _max_pool(ctx: LayerContext, out: OnnxWriter) -> None:
    layer = ctx.layer
    kernel, stride, pad = geometry(ctx)
    up = rounds_up(ctx) and max(stride) > 1
    value, ends = layer.inputs[0], end_pads(ctx, pad)
    ordinary = all(p <= k - s for k, s, p in zip(kernel, stride, pad, strict=True))
    if up and not ordinary:
        # a window may lie outside the image, and runtimes disagree about it: say it without ceil_mode
        up, ends = False, end_padding(kernel, stride, pad)
        if any(e >= k for e, k in zip(ends, kernel, strict=True)):
            pads = out.constant(f"{layer.name}/pad/pads", [0] * 6 + ends)
            value = out.helper("Pad", layer, "pad", [value, pads, out.scalar(f"{layer.name}/pad/value", LOWEST)])
            ends = pad
            if len(layer.tops) > 1:
                raise unsupported(ctx, "a mask of windows that may be empty", "one top")
    outputs = layer.outputs[:1]
    if len(layer.tops) > 1:
        outputs = [outputs[0], out.value(f"{layer.outputs[1]}@indices")]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *ends], "ceil_mode": int(up)}
    out.node("MaxPool", layer, [value], outputs, **attrs)
    if len(layer.tops) > 1:
        out.call("PoolingMask", layer, [outputs[1], layer.inputs[0]], [layer.outputs[1]], suffix="mask")


def _average_pool(ctx: LayerContext, out: OnnxWriter) -> None:
    kernel, stride, pad = geometry(ctx)
    only_inside = enum_name(ctx.param, "pool") == "AVE_EXC_PAD" and any(pad + end_pads(ctx, pad))
    if not rounds_up(ctx) or max(stride) == 1:
        value, ends = ctx.layer.inputs[0], end_pads(ctx, pad)
        if ends != pad and not only_inside:  # a layer of its own: engines average over even padding only
            value = out.helper(
                "Pad",
                ctx.layer,
                "pad",
                [value, out.constant(f"{ctx.layer.name}/pad/pads", [0, 0, *pad, 0, 0, *ends])],
            )
            pad = ends = [0, 0]
        attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pad + ends}
        out.node("AveragePool", ctx.layer, [value], ceil_mode=0, count_include_pad=int(not only_inside), **attrs)
    elif only_inside:
        raise unsupported(ctx, "AVE_EXC_PAD with padding and sizes rounded up", "ceil_mode: false")
    else:
        _average_with_overhang(ctx, out, ctx.layer.outputs, "", end_padding(kernel, stride, pad), kernel, stride, pad)


def _average_with_overhang(
    ctx: LayerContext,
    out: OnnxWriter,
    outputs: list[str],
    suffix: str,
    ends: list[int],
    kernel: list[int],
    stride: list[int],
    pad: list[int],
) -> None:
    """Onnxruntime before 1.21 divides by the whole kernel where Caffe divides by the window clipped to the padded
    image: a function divides by what is inside."""
    name = f"{ctx.layer.name}/{suffix}" if suffix else ctx.layer.name
    extra = [e - p for e, p in zip(ends, pad, strict=True)]
    pads = {"image": [*pad, 0, 0, *ends], "ones": [*pad, 0, 0, *pad], "end": [0, 0, 0, 0, *extra]}
    inputs = [out.constant(f"{name}/{key}_pads", [0, 0, *numbers]) for key, numbers in pads.items()]
    out.call(
        "Pooling", ctx.layer, [*ctx.layer.inputs, *inputs], outputs, suffix=suffix,
        kernel_shape=kernel, strides=stride, pads=pad + pad, ceil_mode=1, count_include_pad=1,
    )  # fmt: skip


def spp_levels(ctx: LayerContext) -> list[tuple[list[int], list[int]]]:
    """kernel and pad of each level of the pyramid: 1, 2, 4, ... bins on either axis."""
    ctx.rank(4)
    height = ctx.param.pyramid_height
    levels = []
    for level in range(height):
        bins = 1 << level
        if bins > min(ctx.shape[2:]):
            raise ModelError(f"{ctx.where}: {bins} bins at level {level} for a bottom of shape {list(ctx.shape)}")
        kernel = [-(-n // bins) for n in ctx.shape[2:]]
        levels.append((kernel, [(bins * k - n + 1) // 2 for k, n in zip(kernel, ctx.shape[2:], strict=True)]))
        if any(p >= k for k, p in zip(*levels[-1], strict=True)):
            raise ModelError(f"{ctx.where}: pad {levels[-1][1]} of level {level} reaches its kernel {kernel}")
    if not levels:
        raise ModelError(f"{ctx.where}: pyramid_height {height}; wanted at least 1")
    return levels


def spp_shape(ctx: LayerContext) -> list[Shape]:
    bins = [1 if level == 0 else _count(ctx, *pair) for level, pair in enumerate(spp_levels(ctx))]
    if len(bins) == 1:
        return [(*ctx.shape[:2], 1, 1)]
    return [(ctx.shape[0], ctx.shape[1] * sum(bins))]


def _count(ctx: LayerContext, kernel: list[int], pad: list[int]) -> int:
    return prod(_windows(n, k, k, p, any(pad)) for n, k, p in zip(ctx.shape[2:], kernel, pad, strict=True))


def spp(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """A pooling for every level of the pyramid, each flattened, side by side."""
    layer, levels = ctx.layer, spp_levels(ctx)
    method = enum_name(ctx.param, "pool")
    if method == "STOCHASTIC":
        raise unsupported(ctx, "stochastic pooling", "pool MAX or AVE")
    flat = []
    for level, (kernel, pad) in enumerate(levels):
        value = layer.outputs[0] if len(levels) == 1 else out.value(f"{layer.outputs[0]}@level{level}")
        suffix = "" if len(levels) == 1 else f"level{level}"
        ends = end_padding(kernel, kernel, pad)
        if level == 0:
            op = "GlobalMaxPool" if method == "MAX" else "GlobalAveragePool"
            out.node(op, layer, layer.inputs, [value], suffix=suffix)
        elif method == "MAX":
            attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": kernel, "pads": [*pad, *ends]}
            out.node("MaxPool", layer, layer.inputs, [value], suffix=suffix, **attrs)
        else:
            _average_with_overhang(ctx, out, [value], suffix, ends, kernel, kernel, pad)
        if len(levels) > 1:
            flat.append(out.helper("Flatten", layer, f"flatten{level}", [value], axis=1))
    if flat:
        out.node("Concat", layer, flat, axis=1)


register_layer("Pooling", pool, shape=pool_shape, settings="pooling_param", tops=(1, 2))
register_layer("SPP", spp, shape=spp_shape, settings="spp_param", bakes_size=lambda ctx: True)
