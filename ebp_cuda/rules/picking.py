"""Layers that copy activations or pick some of them: relevance goes back to where each number came from.

A copy that is made several times (tile, expand) collects what its copies got; what nobody picked gets nothing. The
second input of crop and expand is asked for its shape only. All of these are the ordinary gradient of the original,
but for arg_max, embed and unpool, which it cannot go back through.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F

from ..errors import InputError, ShapeError
from ..graph import Node
from .copies import collected, picked
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


@operation("select", keeps_non_negative=True)
def select(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [picked(xs[0], node.attrs["indices"], node.attrs["axis"])]


@register_rule("select", "move", needs="")
def unselect(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below[i] = sum of p over the copies of i, 0 for what nobody picked."""
    attrs = step.node.attrs
    return [Relevance(collected(only(above).p(), attrs["indices"], step.shapes[0][attrs["axis"]], attrs["axis"]))]


@operation("tile", keeps_non_negative=True)
def tile(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].tile(node.attrs["repeats"])]


@register_rule("tile", "move", needs="")
def untile(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below[i] = sum of p over the copies of i."""
    p = only(above).p()
    pairs = [n for pair in zip(step.node.attrs["repeats"][1:], step.shapes[0][1:], strict=True) for n in pair]
    return [Relevance(p.reshape(p.shape[0], *pairs).sum(dim=tuple(range(1, len(pairs), 2))))]


@operation("expand", keeps_non_negative=True)
def expand(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].expand(xs[1].shape)]


@register_rule("expand", "move", needs="")
def unexpand(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below[i] = sum of p over the copies of i; the input that gives the shape gets none."""
    p, shape = only(above).p(), step.shapes[0]
    axes = tuple(axis for axis in range(1, p.dim()) if shape[axis] != p.shape[axis])
    return [Relevance(p.sum(dim=axes, keepdim=True) if axes else p), None]


def _crop_slices(node: Node, like: Sequence[int]) -> tuple[slice, ...]:
    axis, offsets = node.attrs["axis"], node.attrs["offsets"]
    return (slice(None),) * axis + tuple(slice(o, o + n) for o, n in zip(offsets, like[axis:], strict=True))


@operation("crop", keeps_non_negative=True)
def crop(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    inside = _crop_slices(node, xs[1].shape)
    if any(s.stop is not None and s.stop > n for s, n in zip(inside, xs[0].shape, strict=True)):
        got = f"offsets {list(node.attrs['offsets'])} and size {list(xs[1].shape)}"
        raise ShapeError(f"layer '{node.name}': {got} reach out of {list(xs[0].shape)}")
    return [xs[0][inside]]


@register_rule("crop", "move", needs="")
def uncrop(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p inside the crop, 0 outside; the input that gives the size gets none."""
    p = only(above).p()
    whole = p.new_zeros(p.shape[0], *step.shapes[0][1:])
    whole[_crop_slices(step.node, step.shapes[1])] = p
    return [Relevance(whole), None]


@operation("embed")
def embed(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    index, rows = xs[0].long(), params["weight"].shape[0]
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= rows):
        got = f"{int(index.min())} to {int(index.max())}"
        raise InputError(f"layer '{node.name}': indices {got}, wanted 0 to {rows - 1}")
    y = F.embedding(index, params["weight"])
    return [y + params["bias"] if "bias" in params else y]


@register_rule("embed", "move", rule_sets=["conserving"], needs="")
def unembed(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below of a row number = sum of p over the row's features."""
    return [Relevance(only(above).p().sum(-1))]


def _flat(node: Node, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The input as arg_max sorts it, and along which axis."""
    axis = node.attrs["axis"]
    return (x.flatten(1), 1) if axis is None else (x, axis)


@operation("arg_max")
def arg_max(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    flat, axis = _flat(node, xs[0])
    length, k, kind = flat.shape[axis], node.attrs["k"], node.attrs["gives"]
    if k > length:
        raise ShapeError(f"layer '{node.name}': top_k {k} of {length} numbers")
    # of equal numbers the last one comes first
    order = flat.flip(axis).sort(dim=axis, descending=True, stable=True)
    values, places = order.values.narrow(axis, 0, k), length - 1 - order.indices.narrow(axis, 0, k)
    saved.winners = (places,)
    indices = places.to(values.dtype)
    outputs = {"indices": [indices], "values": [values], "both": [indices, values]}[kind]
    if node.attrs["axis"] is not None:
        return outputs
    ones = (1,) * (max(xs[0].dim(), 3) - 3)
    return [torch.stack(outputs, 1).reshape(flat.shape[0], len(outputs), k, *ones)]


@register_rule("arg_max", "route", rule_sets=["conserving"], needs="")
def route_to_maxima(step: Step, above: Relevances) -> list[Relevance | None]:
    """p goes to the elements that are among the largest."""
    p, (places,), axis = only(above).p(), step.saved.winners, step.node.attrs["axis"]
    if axis is None:
        p = p.flatten(2).sum(1)
    shape = step.shapes[0][1:]
    whole = p.new_zeros(p.shape[0], prod(shape)) if axis is None else p.new_zeros(p.shape[0], *shape)
    winners = places.repeat_interleave(p.shape[0] // places.shape[0], 0)
    return [Relevance(whole.scatter_add_(axis or 1, winners, p).reshape(p.shape[0], *shape))]


@operation("unpool", keeps_non_negative=True)
def unpool(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    x, places = xs[0], xs[1].long().flatten(2)
    fixed, scale, less = (node.attrs[name] for name in ("size", "scale", "less"))
    plane = fixed or [n * s - m for n, s, m in zip(x.shape[2:], scale, less, strict=True)]
    size = plane[0] * plane[1]
    if xs[1].shape != x.shape or int(places.min()) < 0 or int(places.max()) >= size:
        got = f"a mask of shape {list(xs[1].shape)}, places {int(places.min())} to {int(places.max())}"
        raise ShapeError(f"layer '{node.name}': {got}, for {list(x.shape)} on planes of {list(plane)}")
    saved.winners = (places,)
    return [x.new_zeros(*x.shape[:2], size).scatter_(2, places, x.flatten(2)).reshape(*x.shape[:2], *plane)]


@register_rule("unpool", "move", rule_sets=["conserving"], needs="")
def gather_unpooled(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p at the places that the inputs were put in."""
    p, (places,) = only(above).p(), step.saved.winners
    winners = places.repeat_interleave(p.shape[0] // places.shape[0], 0)
    return [Relevance(p.flatten(2).gather(2, winners).reshape(p.shape[0], *step.shapes[0][1:])), None]
