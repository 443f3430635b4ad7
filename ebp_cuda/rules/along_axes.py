"""Sums, products and norms along axes that ONNX has and Caffe has not."""

from __future__ import annotations

from math import prod

import torch

from ..graph import Node
from .pointwise import pass_through
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


def _along(x: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    """W x with a matrix [out, in] along one axis."""
    return (x.movedim(axis, -1) @ weight.t()).movedim(-1, axis)


@operation("weighted_sum")
def weighted_sum(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """The same weighted sums for every line along an axis: interpolation, cumulative sums."""
    return [_along(xs[0], params["weight"], node.attrs["axis"])]


@register_rule("weighted_sum", "share", rule_sets=["conserving"], needs="x")
def share_weighted_sum(step: Step, above: Relevances) -> list[Relevance | None]:
    """As a convolution shares in "conserving": p_below = x+ * W+^T r + x- * W-^T r, r = p / (W+ x+ + W- x-).

    Where that normalizer is 0, p is spread evenly over the elements whose weight is not 0.
    """
    rel, x, weight, axis = only(above), step.inputs[0], step.params["weight"], step.node.attrs["axis"]
    parts = [(x.clamp(min=0), weight.clamp(min=0)), ((-x).clamp(min=0), (-weight).clamp(min=0))]
    z = _along(parts[0][0], parts[0][1], axis) + _along(parts[1][0], parts[1][1], axis)
    r = rel.divided_by(z)
    p = torch.zeros((), dtype=r.dtype, device=r.device)
    for part, w in parts:
        p = p + Relevance(_along(r, w.t(), axis), part).p()
    taps = (weight != 0).to(weight.dtype)
    even = taps / taps.sum(1, keepdim=True).clamp(min=1)
    silent = rel.times((z == 0).to(z.dtype)).p()
    return [Relevance(p + _along(silent, even.t(), axis))]


@operation("logsumexp")
def logsumexp(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """log of the sum of e^x over axes, which go."""
    return [xs[0].logsumexp(tuple(node.attrs["axes"]))]


@register_rule("logsumexp", "share", needs="xy")
def share_logsumexp(step: Step, above: Relevances) -> list[Relevance | None]:
    """By e^x, which is what each input added; it is the gradient as well."""
    rel, x, y = only(above), step.inputs[0], step.outputs[0]
    p = rel.p()
    for axis in sorted(step.node.attrs["axes"]):
        p, y = p.unsqueeze(axis), y.unsqueeze(axis)
    return [Relevance(p.expand(p.shape[0], *x.shape[1:])).times((x - y).exp())]


@operation("product")
def product(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """Product over axes, which go."""
    y = xs[0]
    for axis in sorted(node.attrs["axes"], reverse=True):
        y = y.prod(axis)
    return [y]


@register_rule("product", "share", rule_sets=["conserving"], needs="")
def share_product(step: Step, above: Relevances) -> list[Relevance | None]:
    """Evenly: x_i dy/dx_i = y for every factor, so all of them have the same part in the product."""
    rel, shape, axes = only(above), step.shapes[0], sorted(step.node.attrs["axes"])
    p = rel.p() / prod(shape[axis] for axis in axes)
    for axis in axes:
        p = p.unsqueeze(axis)
    return [Relevance(p.expand(p.shape[0], *shape[1:]))]


@operation("unit_norm")
def unit_norm(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """x over the sum of |x|, or over the root of the sum of x^2, along an axis; 0 where that is 0."""
    x, axis = xs[0], node.attrs["axis"]
    size = torch.linalg.vector_norm(x, node.attrs["order"], axis, keepdim=True)
    return [torch.where(size == 0, torch.zeros_like(x), x / size)]


register_rule("unit_norm", "pass", rule_sets=["conserving"], needs="")(pass_through)


@operation("log_softmax")
def log_softmax(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """x less the logarithm of the sum of e^x along an axis."""
    return [xs[0].log_softmax(node.attrs["axis"])]


@register_rule("log_softmax", "gradient", rule_sets=["caffe"], needs="y")
def log_softmax_gradient(step: Step, above: Relevances) -> list[Relevance | None]:
    rel, y, axis = only(above), step.outputs[0], step.node.attrs["axis"]
    p = rel.p()
    softmax = y.exp().repeat_interleave(p.shape[0] // y.shape[0], 0)
    return [Relevance(p - softmax * p.sum(axis, keepdim=True))]


register_rule("log_softmax", "pass", rule_sets=["conserving"], needs="")(pass_through)
