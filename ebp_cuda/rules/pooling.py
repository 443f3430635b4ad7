"""Pooling: max routes to the winner, average and mean share in proportion to what each input added.

Average pooling in the original: p * x / sum(x) over the window, padding irrelevant, and 0 where the sum is not
above 0. "conserving" shares by max(x, 0) and spreads evenly where a window holds nothing positive.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import ops
from ..errors import ShapeError, UnsupportedError
from ..graph import Node
from ..linear import volume
from ..linear.spatial import Spatial
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


def _output_size(node: Node, size: int, axis: int) -> int:
    """Caffe's and torch's rule: ceil or floor, and no window may start behind the image and its first padding."""
    attrs = node.attrs
    kernel, stride, before, after = (attrs[key][axis] for key in ("kernel", "stride", "padding", "padding_end"))
    reach = attrs["dilation"][axis] * (kernel - 1) + 1
    room = size + before + after - reach
    count = (-(-room // stride) if attrs.get("ceil_mode") else room // stride) + 1
    start = (count - 1) * stride
    if count > 1 and attrs.get("ceil_mode") and start >= size + before:
        if not attrs.get("drops_outside", True):
            raise UnsupportedError(
                f"layer '{node.name}' ({node.source or node.op}): the last window of spatial axis {axis} starts at "
                f"{start}, outside its {size} pixels, where Caffe divides 0 by 0; wanted another size"
            )
        count -= 1
    if count < 1:
        raise ShapeError(f"layer '{node.name}': a window of {reach} does not fit {size} + padding {before} + {after}")
    return count


class Windows:
    """Geometry of one pooling layer on planes of one size."""

    def __init__(self, node: Node, x: torch.Tensor) -> None:
        self.spatial, attrs, size = Spatial.of(node, "pooling", x), node.attrs, list(x.shape[2:])
        ones = [1] * len(size)
        if attrs["kernel"] is None:
            kernel, padding, out_size, stride, dilation = size, [0] * len(size), ones, ones, ones
        else:
            kernel, padding, stride, dilation = (attrs[key] for key in ("kernel", "padding", "stride", "dilation"))
            out_size = [_output_size(node, n, axis) for axis, n in enumerate(size)]
        self.kernel, self.padding = self.spatial.settings(kernel, 1), self.spatial.settings(padding, 0)
        self.stride, self.dilation = self.spatial.settings(stride, 1), self.spatial.settings(dilation, 1)
        self.in_size, self.out_size = self.spatial.settings(size, 1), self.spatial.settings(out_size, 1)

    def parts(self) -> tuple[Windows, Windows]:
        """Of a volume: the windows along depth, on planes [D, H * W], and those within a slice."""
        depth, slices = copy.copy(self), copy.copy(self)
        for name, fill in (("kernel", 1), ("padding", 0), ("stride", 1), ("dilation", 1)):
            setting = getattr(self, name)
            setattr(depth, name, [setting[0], fill])
            setattr(slices, name, setting[1:])
        pixels = math.prod(self.out_size[1:])
        depth.spatial = slices.spatial = Spatial(2)
        depth.in_size, depth.out_size = [self.in_size[0], pixels], [self.out_size[0], pixels]
        slices.in_size, slices.out_size = self.in_size[1:], self.out_size[1:]
        return depth, slices

    def max_settings(self) -> tuple[list[int], ...]:
        return self.kernel, self.stride, self.padding, self.dilation, self.out_size

    def separably(
        self, t: torch.Tensor, size: list[int], new_size: list[int], on_planes: Callable[[Windows, torch.Tensor], Any]
    ) -> torch.Tensor:
        """A volume [N, C, *size] -> [N, C, *new_size], by planes within the slices and along depth.

        In either order: downwards the slices are pooled first, and upwards the depth comes back first.
        """
        depth, slices = self.parts()
        down = size == self.in_size
        if down:
            t = on_planes(slices, volume.within_slices(t))
        t = on_planes(depth, volume.along_depth(t if down else t.flatten(1, 2), size[0]))
        if not down:
            t = on_planes(slices, t.reshape(t.shape[0], -1, *slices.out_size))
        return t.reshape(t.shape[0], -1, *new_size)


@operation("max_pool", keeps_non_negative=True)
def max_pool(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    w = Windows(node, xs[0])
    if w.spatial.rank == 3:
        if len(node.outputs) > 1:
            raise UnsupportedError(f"layer '{node.name}': places of maxima with 3 spatial axes, wanted 1 or 2")
        return [_max_of_volume(w, xs[0], saved)]
    y, winner = ops.max_pool2d(w.spatial.plane(xs[0]), w.kernel, w.stride, w.padding, w.dilation, w.out_size)
    saved.winners = (winner,)
    outputs = [w.spatial.back(y)]
    if len(node.outputs) > 1:
        places = ops.window_places(winner, w.in_size, w.kernel, w.stride, w.padding, w.dilation)  # Caffe's second top
        outputs.append(w.spatial.back(places).to(y.dtype))
    return outputs


@register_rule("max_pool", "route")
def route_to_winner(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below[i] = sum of p over the windows whose first maximum is i."""
    rel, x = above[0], step.inputs[0]
    if rel is None:
        return [None]  # only the indices, which carry none, were asked about
    w = Windows(step.node, x)
    own = rel.x is step.outputs[0]  # the winner's x is the output itself, so the product survives
    p = rel.s if own else rel.p()
    t = _routed(w, p, step.saved.winners)
    return [rel.with_values(t, x) if own else Relevance(t)]


def _routed(w: Windows, p: torch.Tensor, winners: Sequence[torch.Tensor]) -> torch.Tensor:
    if w.spatial.rank == 3:
        (lines, planes), (depth, slices) = winners, w.parts()
        along = volume.along_depth(p.flatten(1, 2), depth.out_size[0])
        t = _routed(depth, along, [lines]).reshape(p.shape[0], -1, *slices.out_size)
        return _routed(slices, t, [planes]).reshape(p.shape[0], -1, *w.in_size)
    (winner,) = winners
    t = ops.max_pool2d_route(w.spatial.plane(p), winner, w.in_size, w.kernel, w.stride, w.padding, w.dilation)
    return w.spatial.back(t)


def _max_of_volume(w: Windows, x: torch.Tensor, saved: Saved) -> torch.Tensor:
    depth, slices = w.parts()
    planes = ops.max_pool2d(volume.within_slices(x), *slices.max_settings())
    lines = ops.max_pool2d(volume.along_depth(planes[0], w.in_size[0]), *depth.max_settings())
    saved.winners = lines[1], planes[1]
    return lines[0].reshape(*x.shape[:2], *w.out_size)


@operation("avg_pool", keeps_non_negative=True)
def avg_pool(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    w = Windows(node, xs[0])
    if node.attrs["kernel"] is not None and node.attrs["padding"] != node.attrs["padding_end"]:
        raise UnsupportedError(f"layer '{node.name}': average pooling with uneven padding")
    if any(d != 1 for d in w.dilation):
        raise UnsupportedError(f"layer '{node.name}': average pooling with dilation {w.dilation}, wanted 1")
    whole = bool(node.attrs.get("count_include_pad", True))
    return [_average(w, xs[0], whole)]


def _average(w: Windows, x: torch.Tensor, whole: bool) -> torch.Tensor:
    if w.spatial.rank == 3:
        return w.separably(x, w.in_size, w.out_size, lambda part, y: _average(part, y, whole))
    return w.spatial.back(ops.avg_pool2d(w.spatial.plane(x), w.kernel, w.stride, w.padding, w.out_size, whole))


def _window_sum(w: Windows, x: torch.Tensor) -> torch.Tensor:
    if w.spatial.rank == 3:
        return w.separably(x, w.in_size, w.out_size, _window_sum)
    return w.spatial.back(ops.window_sum(w.spatial.plane(x), w.kernel, w.stride, w.padding, w.out_size))


@register_rule("avg_pool", "share", rule_sets=["caffe"], needs="x")
def share_window(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x * spread(p / z) with z = the sum of x over each window, 0 where z is not above 0."""
    rel, x = only(above), step.inputs[0]
    w = Windows(step.node, x)
    z = _window_sum(w, x)
    if not step.non_negative[0]:
        z = z.clamp(min=0)
    return [Relevance(_spread(w, rel.divided_by(z)), x)]


@register_rule("avg_pool", "share", rule_sets=["conserving"], needs="x")
def share_window_conserving(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x+ * spread(p / z) with z = the sum of x+ over each window, spread evenly where z is 0."""
    rel, x = only(above), step.inputs[0]
    w = Windows(step.node, x)
    x = x if step.non_negative[0] else x.clamp(min=0)
    z = _window_sum(w, x)
    shared = Relevance(_spread(w, rel.divided_by(z)), x)
    silent = ops.without_excitation(z)
    if not bool(silent.any()):
        return [shared]
    p = rel.times(silent.to(z.dtype)).p()
    inside = _window_sum(w, torch.ones_like(x))
    return [Relevance(shared.p() + _spread(w, ops.divide_or_zero(p, inside)))]


def _spread(w: Windows, r: torch.Tensor) -> torch.Tensor:
    if w.spatial.rank == 3:
        return w.separably(r, w.out_size, w.in_size, _spread)
    return w.spatial.back(ops.window_spread(w.spatial.plane(r), w.in_size, w.kernel, w.stride, w.padding))


@operation("mean", keeps_non_negative=True)
def mean(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    if 0 in _axes(node, xs[0].dim()):
        raise UnsupportedError(f"layer '{node.name}': mean over the batch axis")
    return [xs[0].mean(dim=tuple(node.attrs["axes"]), keepdim=bool(node.attrs["keepdims"]))]


def _axes(node: Node, rank: int) -> list[int]:
    return sorted(axis % rank for axis in node.attrs["axes"])


@register_rule("mean", "share", rule_sets=["caffe"], needs="x")
def share_mean(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x * p / z with z = the sum of x over the axes, 0 where z is not above 0."""
    rel, x = _kept_dims(step, only(above)), step.inputs[0]
    z = x.sum(dim=_axes(step.node, x.dim()), keepdim=True).clamp(min=0)
    return [Relevance(_over_classes(rel.divided_by(z), x), x)]


@register_rule("mean", "share", rule_sets=["conserving"], needs="x")
def share_mean_conserving(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x+ * p / z with z = the sum of x+ over the axes, spread evenly where z is 0."""
    rel, axes = _kept_dims(step, only(above)), _axes(step.node, step.inputs[0].dim())
    x = step.inputs[0].clamp(min=0)
    z = x.sum(dim=axes, keepdim=True)
    x = torch.where(ops.without_excitation(z), torch.ones_like(x), x)
    return [Relevance(_over_classes(rel.divided_by(x.sum(dim=axes, keepdim=True)), x), x)]


def _kept_dims(step: Step, rel: Relevance) -> Relevance:
    if step.node.attrs["keepdims"]:
        return rel

    def restore(t: torch.Tensor) -> torch.Tensor:
        for axis in _axes(step.node, len(step.shapes[0])):
            t = t.unsqueeze(axis)
        return t

    return rel.map(restore)


def _over_classes(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """r with its reduced axes (size 1) expanded to x's, K columns kept."""
    return r.expand(r.shape[0], *x.shape[1:])
