"""Layers of forks that enlarge a plane: Interp (DeepLab, PSPNet), Upsample (SegNet with a mask, YOLO without)."""

from __future__ import annotations

from ....errors import ModelError, ShapeError
from ..writer import OnnxWriter
from .base import Shape, Site, Tensors, kind

END = (1 << 63) - 1


def _interp_plane(site: Site) -> list[int]:
    """Height and width after the padding, which can only take pixels away."""
    site.rank(4)
    param = site.param
    if param.pad_beg > 0 or param.pad_end > 0:
        raise ModelError(f"{site.where}: pad_beg {param.pad_beg}, pad_end {param.pad_end}; wanted 0 or below")
    if param.zoom_factor < 1 or param.shrink_factor < 1:
        raise ModelError(f"{site.where}: zoom_factor {param.zoom_factor}, shrink_factor {param.shrink_factor}")
    plane = [n + param.pad_beg + param.pad_end for n in site.shape[2:]]
    if min(plane) < 1:
        raise ModelError(f"{site.where}: its padding leaves nothing of {list(site.shape)}")
    return plane


def _fixed(site: Site) -> bool:
    return bool(site.param.height or site.param.width)


def interp_shape(site: Site) -> list[Shape]:
    param, plane = site.param, _interp_plane(site)
    if len(site.shapes) > 1:
        if len(site.shapes[1]) != 4:
            raise ShapeError(f"{site.where}: bottom '{site.layer.bottoms[1]}' has shape {list(site.shapes[1])}")
        sizes = list(site.shapes[1][2:])
    elif _fixed(site):
        sizes = [param.height, param.width]
        if min(sizes) < 1:
            raise ModelError(f"{site.where}: height {param.height}, width {param.width}; wanted both above 0")
    else:
        sizes = [(n - 1) // param.shrink_factor * param.zoom_factor + 1 for n in plane]
    return [(*site.shape[:2], *sizes)]


def interp(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """Bilinear, with the corner pixels of both planes on one another."""
    layer, param = site.layer, site.param
    value = layer.inputs[0]
    if param.pad_beg or param.pad_end:
        ends = [param.pad_end or END] * 2
        edges = [out.constant(f"{layer.name}/crop/{i}", n) for i, n in enumerate([[-param.pad_beg] * 2, ends, [2, 3]])]
        value = out.helper("Slice", layer, "crop", [value, *edges])
    if len(site.shapes) > 1:
        out.call("InterpLike", layer, [value, layer.inputs[1]])
    elif _fixed(site):
        size = [param.height, param.width]
        out.call("InterpTo", layer, [value, out.constant(f"{layer.name}/size", size)], height=size[0], width=size[1])
    else:
        factors = [out.constant(f"{layer.name}/{n}", [getattr(param, n)]) for n in ("shrink_factor", "zoom_factor")]
        one = out.constant(f"{layer.name}/one", [1])
        attrs = {"shrink_factor": param.shrink_factor, "zoom_factor": param.zoom_factor}
        out.call("Interp", layer, [value, *factors, one], **attrs)


def _upsample(site: Site) -> tuple[list[int] | None, list[int], list[int]]:
    """The size as set, or None; the scale; and by how much less than the scaled plane the top is."""
    site.rank(4)
    param = site.param
    scale = [getattr(param, name) or param.scale for name in ("scale_h", "scale_w")]
    if min(scale) < 1:
        raise ModelError(f"{site.where}: scale {scale}; wanted at least 1")
    size = [param.upsample_h, param.upsample_w]
    if any(size) and min(size) < 1:
        raise ModelError(f"{site.where}: upsample_h, upsample_w {size}; wanted both above 0")
    return size if any(size) else None, scale, [int(param.pad_out_h), int(param.pad_out_w)]


def upsample_shape(site: Site) -> list[Shape]:
    size, scale, less = _upsample(site)
    if len(site.shapes) > 1 and site.shapes[1] != site.shape:
        raise ShapeError(f"{site.where}: a mask of shape {list(site.shapes[1])}; wanted {list(site.shape)}")
    if size is None:
        size = [n * s - m for n, s, m in zip(site.shape[2:], scale, less, strict=True)]
    return [(*site.shape[:2], *size)]


def upsample(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """With a mask, every number goes to the place where a pooling found it; without, it is repeated."""
    layer = site.layer
    size, scale, less = _upsample(site)
    if len(site.shapes) == 1:
        if size is not None or any(less):
            raise ModelError(f"{site.where}: a size or pad_out without a mask; wanted scale only")
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


kind("Interp", interp, shape=interp_shape, settings="interp_param", bottoms=(1, 2))
kind("Upsample", upsample, shape=upsample_shape, settings="upsample_param", bottoms=(1, 2))
