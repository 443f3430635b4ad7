"""Convolution, fully connected and transposed convolution: the layers with signed weights, which share.

"caffe": P = x * W+^T (p / (W+ x)); no bias, no epsilon, signed x gives signed shares (paper section 3.3, eq. 4
and 5, and the original's excitation backward passes of its convolution and inner product layers).
"conserving": contributions W+ x+ and W- x-, both positive, share; where a neuron has none, its p is spread evenly
over its window, so that nothing is lost.

Where a plan's precision is "tf32" or "bf16", a convolution that tensor cores can take rounds x and W+ alike for the
normalizer, the sweep and the product p = x * t, so that as much comes out as went in, and splits r into two summands.
Every other layer keeps its dtype: fully connected ones, which few rows keep short and which lose most by rounding,
transposed convolutions, and those of other channel counts (the first layer, depthwise ones). Forward passes round
nothing.
"""

from __future__ import annotations

import torch

from .. import ops
from ..graph import Node
from ..linear import LinearMap
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Gate, Saved


def _linear_map(node: Node, params: Params, saved: Saved) -> LinearMap:
    """The engine's map of the layer; a new one where the caller gives another weight."""
    linear, weight = saved.linear, params["weight"]
    return linear if linear is not None and linear.weight is weight else LinearMap.of(node, weight)


@operation("conv", is_contraction=True)
@operation("linear", is_contraction=True)
@operation("conv_transpose", is_contraction=True)
def forward(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """y = L x + b."""
    return [_linear_map(node, params, saved).forward(xs[0], params.get("bias"))]


def forward_with_normalizer(
    node: Node, params: Params, xs: Tensors, saved: Saved, *, relu: bool, as_gate: bool
) -> Tensors:
    """y = L x + b, or max(y, 0) where `relu`; saves z = L+ x for `share_excitation`, or y / z where `as_gate`."""
    x, linear = xs[0], _linear_map(node, params, saved)
    positive = linear.positive()
    y, side = linear.forward_with_normalizer(x, params.get("bias"), relu=relu, as_gate=as_gate)
    saved.normalizers[positive] = Gate(y, side, lambda: positive.apply(x)) if as_gate else side
    return [y]


@register_rule("conv", "share", rule_sets=["caffe"], needs="x")
@register_rule("linear", "share", rule_sets=["caffe"], needs="x")
def share_excitation(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x * L+^T r with r = p / z and z = L+ x (paper, eq. 4 and 5)."""
    x = step.inputs[0]
    positive = step.linear.positive(step.sign)  # L+; (-L)+ in the second half of the contrast
    z = step.once(positive, lambda: positive.apply(x))  # or the gate y / z, where the forward computed that
    r = only(above).divided_in_factors(z)
    return [Relevance(positive.transpose(r, x.shape), x)]  # computed later, in one sum with what others give to x


@register_rule("conv_transpose", "gradient", rule_sets=["caffe"], needs="")
def gradient_of_deconvolution(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = L^T p: the original has no excitation rule for its Deconvolution layer."""
    t = step.linear.transpose(only(above).p(), step.shapes[0]).tensor()
    return [Relevance(t if step.sign > 0 else -t)]


@register_rule("conv", "share", rule_sets=["conserving"], needs="x")
@register_rule("linear", "share", rule_sets=["conserving"], needs="x")
@register_rule("conv_transpose", "share", rule_sets=["conserving"], needs="x")
def share_conserving(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = x+ * L+^T r + x- * L-^T r with r = p / z and z = L+ x+ + L- x-; all four factors are not negative."""
    x, p = step.inputs[0], only(above)
    plus, minus = step.linear.positive(step.sign), step.linear.positive(-step.sign)
    parts = [(plus, x)] if step.non_negative[0] else [(plus, x.clamp(min=0)), (minus, (-x).clamp(min=0))]
    z = step.once(plus, lambda: _sum([linear.apply(part) for linear, part in parts]))
    r = p.divided_in_factors(z)
    below = [Relevance(linear.transpose(r, x.shape), part) for linear, part in parts]
    unshared = spread_evenly(step, p, z.normalizer if isinstance(z, Gate) else z)
    if len(below) == 1 and unshared is None:
        return [below[0]]
    return [Relevance(_sum([*(part.p() for part in below), *([] if unshared is None else [unshared])]))]


def spread_evenly(step: Step, above: Relevance, z: torch.Tensor) -> torch.Tensor | None:
    """What neurons without any excitation hold, spread evenly over the inputs of their windows; None if nothing."""
    silent = ops.without_excitation(z)
    if not bool(silent.any()):
        return None
    p = above.times(silent.to(z.dtype)).p()
    if not above.is_followed and not bool(p.any()):  # a transposed sweep asks for every p that may be there
        return None
    ones = step.linear.uniform
    inputs = step.once("inputs of a window", lambda: ones.apply(torch.ones_like(step.inputs[0])))
    assert isinstance(inputs, torch.Tensor)
    return ones.transpose(ops.divide_or_zero(p, inputs), step.shapes[0]).tensor()


def _sum(tensors: Tensors) -> torch.Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
