"""Layers of forks that enlarge a plane: Interp (DeepLab, PSPNet), Upsample (SegNet with a mask, YOLO without)."""

from __future__ import annotations

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from .base import LayerContext, Shape, Tensors, register_layer

END = (1 << 63) - 1


def _interp_plane(ctx: LayerContext) -> list[int]:
    """Height and width after the padding, which can only take pixels away."""
    ctx.rank(4)
    param = ctx.param
    if param.pad_beg > 0 or param.pad_end > 0:
        raise ModelError(f"{ctx.where}: pad_beg {param.pad_beg}, pad_end {param.pad_end}; wanted 0 or below")
    if param.zoom_factor < 1 or param.shrink_factor < 1:
        raise ModelError(f"{ctx.where}: zoom_factor {param.zoom_factor}, shrink_factor {param.shrink_factor}")
    plane = [n + param.pad_beg + param.pad_end for n in ctx.shape[2:]]
    if min(plane) < 1:
        raise ModelError(f"{ctx.where}: its padding leaves nothing of {list(ctx.shape)}")
    return plane


def _fixed(ctx: LayerContext) -> bool:
    return bool(ctx.param.height or ctx.param.width)


def interp_shape(ctx: LayerContext) -> list[Shape]:
    param, plane = ctx.param, _interp_plane(ctx)
    if len(ctx.shapes) > 1:
        if len(ctx.shapes[1]) != 4:
            raise ShapeError(f"{ctx.where}: bottom '{ctx.layer.bottoms[1]}' has shape {list(ctx.shapes[1])}")
        sizes = list(ctx.shapes[1][2:])
    elif _fixed(ctx):
        sizes = [param.height, param.width]
        if min(sizes) < 1:
            raise ModelError(f"{ctx.where}: height {param.height}, width {param.width}; wanted both above 0")
    else:
        sizes = [(n - 1) // param.shrink_factor * param.zoom_factor + 1 for n in plane]
    return [(*ctx.shape[:2], *sizes)]


def interp(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """Bilinear, with the corner pixels of both planes on one another."""
    layer, param = ctx.layer, ctx.param
    value = layer.inputs[0]
    if param.pad_beg or param.pad_end:
        ends = [param.pad_end or END] * 2
        edges = [out.constant(f"{layer.name}/crop/{i}", n) for i, n in enumerate([[-param.pad_beg] * 2, ends, [2, 3]])]
        value = out.helper("Slice", layer, "crop", [value, *edges])
    if len(ctx.shapes) > 1:
        out.call("InterpLike", layer, [value, layer.inputs[1]])
    elif _fixed(ctx):
        size = [param.height, param.width]
        out.call("InterpTo", layer, [value, out.constant(f"{layer.name}/size", size)], height=size[0], width=size[1])
    else:
        factors = [out.constant(f"{layer.name}/{n}", [getattr(param, n)]) for n in ("shrink_factor", "zoom_factor")]
        one = out.constant(f"{layer.name}/one", [1])
        attrs = {"shrink_factor": param.shrink_factor, "zoom_factor": param.zoom_factor}
        out.call("Interp", layer, [value, *factors, one], **attrs)


def _upsample(ctx: LayerContext) -> tuple[list[int] | None, list[int], list[int]]:
    """The size as set, or None; the scale; and by how much less than the scaled plane the top is."""
    ctx.rank(4)
    param = ctx.param
    scale = [getattr(param, name) or param.scale for name in ("scale_h", "scale_w")]
    if min(scale) < 1:
        raise ModelError(f"{ctx.where}: scale {scale}; wanted at least 1")
    size = [param.upsample_h, param.upsample_w]
    if any(size) and min(size) < 1:
        raise ModelError(f"{ctx.where}: upsample_h, upsample_w {size}; wanted both above 0")
    return size if any(size) else None, scale, [int(param.pad_out_h), int(param.pad_out_w)]


def upsample_shape(ctx: LayerContext) -> list[Shape]:
    size, scale, less = _upsample(ctx)
    if len(ctx.shapes) > 1 and ctx.shapes[1] != ctx.shape:
        raise ShapeError(f"{ctx.where}: a mask of shape {list(ctx.shapes[1])}; wanted {list(ctx.shape)}")
    if size is None:
        size = [n * s - m for n, s, m in zip(ctx.shape[2:], scale, less, strict=True)]
    return [(*ctx.shape[:2], *size)]


def upsample(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    """With a mask, every number goes to the place where a pooling found it; without, it is repeated."""
    layer = ctx.layer
    size, scale, less = _upsample(ctx)
    if len(ctx.shapes) == 1:
        if size is not None or any(less):
            raise ModelError(f"{ctx.where}: a size or pad_out without a mask; wanted scale only")
        factors = out.floats(f"{layer.name}/scale", [1, 1, *scale])
        out.node(
            "Resize", layer, [layer.inputs[0], "", factors],
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        return
    if size is not None:
        inputs = [out.constant(f"{layer.name}/size", size)]
        out.call("UpsampleTo", layer, [*layer.inputs, *inputs], size=size)
    else:
        inputs = [out.constant(f"{layer.name}/{name}", n) for name, n in (("scale", scale), ("pad_out", less))]
        out.call("Upsample", layer, [*layer.inputs, *inputs], scale=scale, pad_out=less)


register_layer("Interp", interp, shape=interp_shape, settings="interp_param", bottoms=(1, 2))
register_layer("Upsample", upsample, shape=upsample_shape, settings="upsample_param", bottoms=(1, 2))
