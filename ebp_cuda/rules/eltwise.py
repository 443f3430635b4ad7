"""Layers that join several activations of one shape: sum shares, max routes, product gates.

The original's Eltwise SUM shares p * x_i / y with signed x_i and ignores the coefficients; MAX gives ties to the
later of the first two inputs, then to the earlier one; PROD has no rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import ops
from ..errors import ShapeError
from ..graph import Node
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


def _same_shapes(node: Node, xs: Tensors) -> None:
    if any(x.shape != xs[0].shape for x in xs):
        raise ShapeError(f"layer '{node.name}': inputs have shapes {[list(x.shape) for x in xs]}, wanted one shape")


def _coefficients(node: Node, count: int) -> Sequence[float]:
    return node.attrs.get("coefficients") or (1.0,) * count


@operation("sum", keeps_non_negative=True)
def eltwise_sum(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    _same_shapes(node, xs)
    weighted = [x if c == 1 else c * x for c, x in zip(_coefficients(node, len(xs)), xs, strict=True)]
    total = weighted[0] + weighted[1]
    for x in weighted[2:]:
        total = total + x
    return [total]


@register_rule("sum", "share", rule_sets=["caffe"])
def share_sum(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below of input i = x_i * p / y: signed, and without the coefficients, as in the original."""
    rel, y = only(above), step.outputs[0]
    positive = all(step.non_negative) and all(c > 0 for c in _coefficients(step.node, len(step.inputs)))
    own = rel.factor is y and positive  # then y / y is 1 wherever some input is not 0
    r = rel.s if own else rel.divided_by(y)
    return [Relevance(r, x) for x in step.inputs]


@register_rule("sum", "share", rule_sets=["conserving"], needs="x")
def share_sum_conserving(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below of input i = (c_i x_i)+ * p / z with z = the sum of (c_i x_i)+, evenly where z is 0."""
    rel = only(above)
    coefficients = _coefficients(step.node, len(step.inputs))
    positive = [(c * x).clamp(min=0) for c, x in zip(coefficients, step.inputs, strict=True)]
    z = torch.stack(positive).sum(0)
    even = ops.without_excitation(z).to(z.dtype)  # nothing positive to share by: each input takes the same part
    r = rel.divided_by(z + len(positive) * even)
    return [Relevance(r, part + even) for part in positive]


@operation("max")
def eltwise_max(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    _same_shapes(node, xs)
    saved.winners = (ops.max_winner(list(xs)),)
    top = torch.maximum(xs[0], xs[1])
    for x in xs[2:]:
        top = torch.maximum(top, x)
    return [top]


@register_rule("max", "route", needs="")
def route_to_largest(step: Step, above: Relevances) -> list[Relevance | None]:
    """p goes to the input that wins the maximum."""
    rel, (winner,) = only(above), step.saved.winners
    kind = rel.s.dtype
    return [rel.times((winner == index).to(kind)) for index in range(len(step.node.inputs))]


@operation("mul", keeps_non_negative=True)
def eltwise_mul(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    product = xs[0] * xs[1]
    for x in xs[2:]:
        product = product * x
    return [product]


@register_rule("mul", "pass", rule_sets=["conserving"], needs="")
def pass_to_gated(step: Step, above: Relevances) -> list[Relevance | None]:
    """All of p goes to the first input of the output's full size; a gate (squeeze-excite) gets none."""
    rel = only(above)
    full = next((i for i, shape in enumerate(step.shapes) if shape[1:] == rel.s.shape[1:]), 0)
    return [rel if index == full else None for index in range(len(step.shapes))]
