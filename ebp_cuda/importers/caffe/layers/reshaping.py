"""Flatten, Reshape, Squeeze, Reorg."""

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


def squeezed_axes(site: Site) -> list[int]:
    axes = sorted({site.axis(axis) for axis in site.param.axis}) or [i for i, n in enumerate(site.shape) if n == 1]
    if any(site.shape[axis] != 1 for axis in axes):
        raise ModelError(f"{site.where}: axes {axes} of a bottom of shape {list(site.shape)}; wanted axes of length 1")
    return axes


def squeeze_shape(site: Site) -> list[Shape]:
    axes = squeezed_axes(site)
    return [tuple(n for axis, n in enumerate(site.shape) if axis not in axes)]


def squeeze(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    axes = out.constant(f"{site.layer.name}/axes", squeezed_axes(site))
    out.node("Squeeze", site.layer, [*site.layer.inputs, axes])


def reorg_shape(site: Site) -> list[Shape]:
    site.rank(4)
    n, c, h, w = site.shape
    step = site.param.stride
    if step < 1 or c % step**2 or (not site.param.reverse and (h % step or w % step)):
        raise ModelError(f"{site.where}: stride {step} does not divide a bottom of shape {list(site.shape)}")
    return [(n, c // step**2, h * step, w * step) if site.param.reverse else (n, c * step**2, h // step, w // step)]


def reorg(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    """YOLO's exchange of places for channels. Forwards, as in Darknet, it counts the bottom's numbers as if it had
    the shape of a reversed top, whatever its own."""
    layer, step = site.layer, site.param.stride
    _, c, h, w = site.shape
    channels = c // step**2
    if site.param.reverse:
        view, perm, inside = [0, step, step, channels, h, w], [0, 3, 4, 1, 5, 2], reorg_shape(site)[0]
    else:
        view, perm, inside = [0, channels, h, step, w, step], [0, 3, 5, 1, 2, 4], reorg_shape(site)[0]
    split = out.helper("Reshape", layer, "split", [layer.inputs[0], out.constant(f"{layer.name}/view", view)])
    moved = out.helper("Transpose", layer, "moved", [split], perm=perm)
    out.node("Reshape", layer, [moved, out.constant(f"{layer.name}/shape", [0, *inside[1:]])])


kind(
    "Squeeze", squeeze, shape=squeeze_shape, settings="squeeze_param",
    bakes_batch=lambda site: 0 in squeezed_axes(site), bakes_size=lambda site: max(squeezed_axes(site), default=0) > 1,
)  # fmt: skip
kind("Reorg", reorg, shape=reorg_shape, settings="reorg_param", bakes_size=lambda site: True)
kind(
    "Flatten", flatten, shape=flatten_shape, settings="flatten_param",
    bakes_size=lambda site: flatten_axes(site)[1] < len(site.shape),
)  # fmt: skip
kind(
    "Reshape", reshape, shape=reshape_shape, settings="reshape_param",
    bakes_size=lambda site: site.param.num_axes != -1,
)  # fmt: skip
