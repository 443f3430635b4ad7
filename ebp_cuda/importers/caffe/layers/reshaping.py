"""Flatten and Reshape."""

from __future__ import annotations

from math import prod

from ....errors import ModelError
from ..writer import OnnxWriter
from .base import Shape, Site, Tensors, kind


def flatten_axes(site: Site) -> tuple[int, int]:
    """The first axis that is flattened, and the one behind the last."""
    param = site.param
    start, end = site.axis(param.axis), site.axis(param.end_axis) + 1
    if start >= end:
        raise ModelError(f"{site.where}: axis {param.axis} lies behind end_axis {param.end_axis}")
    return start, end


def flatten_shape(site: Site) -> list[Shape]:
    start, end = flatten_axes(site)
    return [(*site.shape[:start], prod(site.shape[start:end]), *site.shape[end:])]


def flatten(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    start, end = flatten_axes(site)
    if start == 1 and end == len(site.shape):
        out.node("Flatten", site.layer, axis=1)
    else:
        _reshape(site, out, [*[0] * start, -1, *site.shape[end:]])


def reshape_target(site: Site) -> list[int]:
    """Caffe's reshape in ONNX's terms: a length for each axis of the top, 0 copies the bottom's, -1 is what is left."""
    param, rank = site.param, len(site.shape)
    start = param.axis if param.axis >= 0 else rank + param.axis + 1
    end = rank if param.num_axes == -1 else start + param.num_axes
    if not 0 <= start <= end <= rank:
        raise ModelError(f"{site.where}: axis {param.axis}, num_axes {param.num_axes}, bottom {list(site.shape)}")
    dims = [int(n) for n in param.shape.dim]
    for index, dim in enumerate(dims):
        if dim < -1 or (dim == 0 and start + index >= rank):
            raise ModelError(f"{site.where}: dim {dim} at place {index} of its shape; bottom {list(site.shape)}")
    if dims.count(-1) > 1:
        raise ModelError(f"{site.where}: shape {dims} has more than one -1")
    return [*[0] * start, *dims, *site.shape[end:]]


def reshape_shape(site: Site) -> list[Shape]:
    target, total = reshape_target(site), prod(site.shape)
    dims = [site.shape[index] if dim == 0 else dim for index, dim in enumerate(target)]
    if -1 in dims:
        known = prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = total // known if known else 0
    if prod(dims) != total:
        raise ModelError(f"{site.where}: shape {target} does not hold the {total} numbers of bottom {list(site.shape)}")
    return [tuple(dims)]


def reshape(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    _reshape(site, out, reshape_target(site))


def _reshape(site: Site, out: OnnxWriter, target: list[int]) -> None:
    shape = out.constant(f"{site.layer.name}/shape", target)
    out.node("Reshape", site.layer, [site.layer.inputs[0], shape])


kind(
    "Flatten", flatten, shape=flatten_shape, settings="flatten_param",
    bakes_size=lambda site: flatten_axes(site)[1] < len(site.shape),
)  # fmt: skip
kind(
    "Reshape", reshape, shape=reshape_shape, settings="reshape_param",
    bakes_size=lambda site: site.param.num_axes != -1,
)  # fmt: skip
