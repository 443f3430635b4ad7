"""Layers with several bottoms or tops: Eltwise, Concat, Slice, Split."""

from __future__ import annotations

from itertools import pairwise

from ....errors import ModelError, ShapeError
from ..schema import enum_name
from ..writer import OnnxWriter
from .base import MANY, Shape, Site, Tensors, kind


def eltwise_shape(site: Site) -> list[Shape]:
    for blob, shape in zip(site.layer.bottoms, site.shapes, strict=True):
        if shape != site.shape:
            raise ShapeError(
                f"{site.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(site.shape)}, "
                f"the shape of '{site.layer.bottoms[0]}'"
            )
    return [site.shape]


def eltwise(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    operation, coeff = enum_name(site.param, "operation"), list(site.param.coeff)
    if coeff and (operation != "SUM" or len(coeff) != len(site.shapes)):
        raise ModelError(
            f"{site.where}: operation {operation} with {len(coeff)} coeff; wanted SUM with {len(site.shapes)}"
        )
    if operation == "PROD":
        _product(site, out)
    elif all(factor == 1 for factor in coeff):
        out.node({"SUM": "Sum", "MAX": "Max"}[operation], site.layer)
    else:
        out.weighted_sum(site.layer, coeff)


def _product(site: Site, out: OnnxWriter) -> None:
    """ONNX multiplies two at a time."""
    layer = site.layer
    value = layer.inputs[0]
    for index, other in enumerate(layer.inputs[1:-1]):
        value = out.helper("Mul", layer, f"product{index}", [value, other])
    out.node("Mul", layer, [value, layer.inputs[-1]])


def concat_axis(site: Site) -> int:
    param = site.param
    return int(param.concat_dim) if param.HasField("concat_dim") else site.axis(param.axis)


def concat_shape(site: Site) -> list[Shape]:
    axis = concat_axis(site)
    total = 0
    for blob, shape in zip(site.layer.bottoms, site.shapes, strict=True):
        if (
            len(shape) != len(site.shape)
            or shape[:axis] + shape[axis + 1 :] != site.shape[:axis] + site.shape[axis + 1 :]
        ):
            raise ShapeError(
                f"{site.where}: bottom '{blob}' has shape {list(shape)}; wanted {list(site.shape)} but for axis {axis}"
            )
        total += shape[axis]
    return [(*site.shape[:axis], total, *site.shape[axis + 1 :])]


def concat(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.node("Concat", site.layer, axis=concat_axis(site))


def slice_axis(site: Site) -> int:
    param = site.param
    return int(param.slice_dim) if param.HasField("slice_dim") else site.axis(param.axis)


def slice_sizes(site: Site) -> list[int]:
    """Length of each top along the axis."""
    length, count, points = site.shape[slice_axis(site)], len(site.layer.tops), list(site.param.slice_point)
    if not points and length % count == 0:
        return [length // count] * count
    edges = [0, *points, length]
    sizes = [after - before for before, after in pairwise(edges)]
    if len(sizes) != count or min(sizes) < 1:
        raise ModelError(f"{site.where}: {count} tops and slice_point {points} do not divide {length}")
    return sizes


def slice_shape(site: Site) -> list[Shape]:
    axis = slice_axis(site)
    return [(*site.shape[:axis], size, *site.shape[axis + 1 :]) for size in slice_sizes(site)]


def slice_(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    sizes = out.constant(f"{site.layer.name}/sizes", slice_sizes(site))
    out.node("Split", site.layer, [*site.layer.inputs, sizes], axis=slice_axis(site))


def split(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    for index, value in enumerate(site.layer.outputs):
        out.node("Identity", site.layer, outputs=[value], suffix=str(index) if index else "")


def axpy_shape(site: Site) -> list[Shape]:
    factor, x, y = site.shapes
    if y != x or len(factor) not in (2, len(x)) or factor[:2] != x[:2] or any(n != 1 for n in factor[2:]):
        raise ShapeError(f"{site.where}: bottoms of shapes {[list(s) for s in site.shapes]}; wanted [N, C], x and x")
    return [x]


def axpy(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """a x + y with a factor a for every channel (SENet)."""
    layer = site.layer
    factor, x, y = layer.inputs
    missing = list(range(len(site.shapes[0]), len(site.shapes[1])))
    if missing:
        factor = out.helper("Unsqueeze", layer, "factor", [factor, out.constant(f"{layer.name}/axes", missing)])
    out.node("Add", layer, [out.helper("Mul", layer, "product", [x, factor]), y])


kind("Axpy", axpy, shape=axpy_shape, bottoms=(3, 3))
kind("Eltwise", eltwise, shape=eltwise_shape, settings="eltwise_param", bottoms=(2, MANY))
kind("Concat", concat, shape=concat_shape, settings="concat_param", bottoms=(1, MANY))
kind(
    "Slice", slice_, shape=slice_shape, settings="slice_param", tops=(1, MANY),
    bakes_size=lambda site: slice_axis(site) > 1, bakes_batch=lambda site: slice_axis(site) == 0,
)  # fmt: skip
kind("Split", split, tops=(1, MANY))
