"""Layers that only move activations about; relevance moves back along the same way.

A relevance that is still a product (Relevance.x) keeps its factor: where the factor is the layer's own output, the
part that belongs to an input is that input itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import ops
from ..errors import ShapeError
from ..graph import Node
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


def _reshaped(step: Step, rel: Relevance) -> Relevance:
    """Relevance of a single input that holds the same elements in the same order."""
    shape = step.shapes[0][1:]
    s = rel.s.reshape(rel.s.shape[0], *shape)
    if rel.x is None:
        return Relevance(s)
    own = rel.x is step.outputs[0]
    return rel.with_values(s, step.inputs[0] if own else rel.x.reshape(rel.x.shape[0], *shape))


@operation("flatten", keeps_non_negative=True)
def flatten(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].flatten(node.attrs["axis"])]


@operation("reshape", keeps_non_negative=True)
def reshape(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    x = xs[0]
    shape = [x.shape[i] if n == 0 else n for i, n in enumerate(node.attrs["shape"])]
    try:
        return [x.reshape(shape)]
    except RuntimeError:
        raise ShapeError(f"layer '{node.name}': input {list(x.shape)} cannot be reshaped to {shape}") from None


@operation("squeeze", keeps_non_negative=True)
def squeeze(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].squeeze(tuple(node.attrs["axes"]))]


@operation("unsqueeze", keeps_non_negative=True)
def unsqueeze(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    y = xs[0]
    rank = y.dim() + len(node.attrs["axes"])
    for axis in sorted(axis % rank for axis in node.attrs["axes"]):
        y = y.unsqueeze(axis)
    return [y]


@register_rule("flatten", "move")
@register_rule("reshape", "move")
@register_rule("squeeze", "move")
@register_rule("unsqueeze", "move")
def unreshape(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p, in the shape of the input."""
    return [_reshaped(step, only(above))]


@operation("transpose", keeps_non_negative=True)
def transpose(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].permute(node.attrs["perm"])]


@register_rule("transpose", "move", needs="")
def untranspose(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p, its axes back in the input's order."""
    perm = step.node.attrs["perm"]
    inverse = sorted(range(len(perm)), key=lambda axis: perm[axis])
    return [only(above).map(lambda t: t.permute(inverse))]


@operation("concat", keeps_non_negative=True)
def concat(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [torch.cat(list(xs), node.attrs["axis"])]


@register_rule("concat", "move")
def unconcat(step: Step, above: Relevances) -> list[Relevance | None]:
    """Each input gets its slice of p."""
    rel, axis = only(above), step.node.attrs["axis"]
    sizes = [shape[axis] for shape in step.shapes]
    parts = rel.s.split(sizes, axis)
    if rel.x is None:
        return [Relevance(part) for part in parts]
    factors = step.inputs if rel.x is step.outputs[0] else rel.x.split(sizes, axis)
    return [rel.with_values(part, factor) for part, factor in zip(parts, factors, strict=True)]


def _slices(node: Node, rank: int) -> tuple[slice, ...]:
    attrs = node.attrs
    index = [slice(None)] * rank
    steps = attrs.get("steps") or (1,) * len(attrs["axes"])
    for axis, start, end, step in zip(attrs["axes"], attrs["starts"], attrs["ends"], steps, strict=True):
        index[axis] = slice(start, end, step)
    return tuple(index)


@operation("slice", keeps_non_negative=True)
def slice_(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0][_slices(node, xs[0].dim())]]


@register_rule("slice", "move", needs="")
def unslice(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p where the slice was taken, 0 elsewhere."""
    p = only(above).p()
    whole = p.new_zeros(p.shape[0], *step.shapes[0][1:])
    whole[_slices(step.node, whole.dim())] = p
    return [Relevance(whole)]


@operation("split", keeps_non_negative=True)
def split(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return xs[0].split(list(node.attrs["sizes"]), node.attrs["axis"])


@register_rule("split", "move", needs="")
def unsplit(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = the p of all parts side by side, 0 for a part that has none."""
    axis, sizes = step.node.attrs["axis"], step.node.attrs["sizes"]
    some = next(rel for rel in above if rel is not None).s
    parts = []
    for rel, size in zip(above, sizes, strict=True):
        shape = [some.shape[0], *step.shapes[0][1:]]
        shape[axis] = size
        parts.append(some.new_zeros(shape) if rel is None else rel.p())
    return [Relevance(torch.cat(parts, axis))]


def _pad_pairs(node: Node) -> list[int]:
    return [n for pair in reversed(node.attrs["pads"]) for n in pair]


@operation("pad")
def pad(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [F.pad(xs[0], _pad_pairs(node), value=float(node.attrs.get("value", 0.0)))]


@register_rule("pad", "move", needs="")
def unpad(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p without what was padded."""
    inside = [-n for n in _pad_pairs(step.node)]
    return [only(above).map(lambda t: F.pad(t, inside))]


_BACKWARD = {
    "nearest": torch.ops.aten.upsample_nearest2d_backward,
    "linear": torch.ops.aten.upsample_bilinear2d_backward,
}


def _resize_size(node: Node, xs: Tensors) -> Sequence[int]:
    """Height and width that a resize gives: as set, those of a second input, or by Caffe's rule for corner pixels."""
    attrs = node.attrs
    if len(xs) > 1:
        return xs[1].shape[2:]
    if attrs.get("zoom"):
        return [(n - 1) // attrs["shrink"] * attrs["zoom"] + 1 for n in xs[0].shape[2:]]
    return attrs.get("size") or ()


def _resized(node: Node, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    attrs = node.attrs
    if x.dim() != 4 or attrs["mode"] not in _BACKWARD:
        wanted = f"[N, C, H, W] and mode {' or '.join(_BACKWARD)}"
        raise ShapeError(f"layer '{node.name}': resize of {list(x.shape)} by mode '{attrs['mode']}'; wanted {wanted}")
    mode = "bilinear" if attrs["mode"] == "linear" else "nearest"
    corners = bool(attrs.get("align_corners")) if mode == "bilinear" else None
    scale = _scale(node)  # a given scale is the ratio of coordinates, even where it rounds
    if scale is None:
        return F.interpolate(x, list(size), mode=mode, align_corners=corners)
    return F.interpolate(x, None, scale, mode, corners, recompute_scale_factor=False)


def _scale(node: Node) -> list[float] | None:
    return [float(n) for n in node.attrs["scale"]] if node.attrs.get("scale") else None


@operation("resize", keeps_non_negative=True)
def resize(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [_resized(node, xs[0], _resize_size(node, xs))]


@register_rule("resize", "share", rule_sets=["conserving"], needs="x")
def share_interpolation(step: Step, above: Relevances) -> list[Relevance | None]:
    """Each output shares by interpolation weight times max(x, 0), and by the weight alone where that is 0."""
    rel, x = only(above), step.inputs[0].clamp(min=0)
    z = _resized(step.node, x, rel.s.shape[2:])
    silent = ops.without_excitation(z).to(z.dtype)
    shared = Relevance(_spread(step, rel.divided_by(z)), x)
    unused = [None] * (len(step.shapes) - 1)
    return [Relevance(shared.p() + _spread(step, rel.times(silent).p())), *unused]


def _spread(step: Step, r: torch.Tensor) -> torch.Tensor:
    """The adjoint of the interpolation."""
    attrs, size = step.node.attrs, [r.shape[0], *step.shapes[0][1:]]
    corners = [bool(attrs.get("align_corners"))] if attrs["mode"] == "linear" else []
    scales: list[float] | list[None] = _scale(step.node) or [None, None]
    return _BACKWARD[attrs["mode"]](r, list(r.shape[2:]), size, *corners, *scales)
