"""Layers that take a sum over whole axes: reduce shares it out, mvn and normalize divide by one and hand p on.

"caffe" has the ordinary gradient for reduce and mvn, as the original does, and no rule for normalize. standardize (the
core of layer, group and instance norm) did not exist then: as LRN and batch norm, it hands p on in both rule sets. Its
mean and deviation are taken for constants: they are sums over everything, and sharing by them would smear p evenly.
"""

from __future__ import annotations

import torch

from .. import ops
from ..errors import ShapeError
from ..graph import Node
from .pointwise import pass_through
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved


def _total(node: Node, x: torch.Tensor) -> torch.Tensor:
    axes = tuple(node.attrs["axes"])
    match node.attrs["kind"]:
        case "sum":
            return x.sum(axes)
        case "mean":
            return x.mean(axes)
        case "asum":
            return x.abs().sum(axes)
        case _:
            return (x * x).sum(axes)


@operation("reduce")
def reduce(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [_total(node, xs[0]) * node.attrs["coefficient"]]


def _restored(step: Step, rel: Relevance) -> torch.Tensor:
    """p with the reduced axes back, as long as the input's."""
    p = rel.p()
    for axis in sorted(step.node.attrs["axes"]):
        p = p.unsqueeze(axis)
    return p.expand(p.shape[0], *step.shapes[0][1:])


@register_rule("reduce", "gradient", rule_sets=["caffe"], needs="x")
def reduce_gradient(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p * dy / dx."""
    x, attrs = step.inputs[0], step.node.attrs
    p = _restored(step, only(above)) * attrs["coefficient"]
    if attrs["kind"] == "mean":
        count = x.numel() // _total(step.node, x).numel()
        return [Relevance(p / count)]
    if attrs["kind"] == "sum":
        return [Relevance(p)]
    return [Relevance(p).times(x.sign() if attrs["kind"] == "asum" else 2 * x)]


@register_rule("reduce", "share", rule_sets=["conserving"], needs="x")
def share_reduced(step: Step, above: Relevances) -> list[Relevance | None]:
    """By what each input added to the side of the coefficient's sign, evenly where nothing did."""
    x, attrs = step.inputs[0], step.node.attrs
    axes = tuple(attrs["axes"])
    part = {"asum": torch.abs, "sumsq": torch.square}.get(attrs["kind"], torch.relu)(x)
    z = part.sum(axes, keepdim=True)
    part = torch.where(ops.without_excitation(z), torch.ones_like(part), part)
    return [Relevance(_restored(step, only(above))).times(part / part.sum(axes, keepdim=True))]


@operation("mvn")
def mvn(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [_centered(node, xs[0]) / _deviation(node, xs[0])]


def _centered(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(tuple(node.attrs["axes"]), keepdim=True)


def _deviation(node: Node, x: torch.Tensor) -> torch.Tensor | float:
    if node.attrs["eps"] is None:
        return 1.0
    return (_centered(node, x) ** 2).mean(tuple(node.attrs["axes"]), keepdim=True).sqrt() + node.attrs["eps"]


@register_rule("mvn", "gradient", rule_sets=["caffe"])
def mvn_gradient(step: Step, above: Relevances) -> list[Relevance | None]:
    """As the original has it: its derivative of the deviation leaves eps out."""
    p, axes = only(above).p(), tuple(step.node.attrs["axes"])
    if step.node.attrs["eps"] is None:
        return [Relevance(p - p.mean(axes, keepdim=True))]
    y, deviation = step.outputs[0], _deviation(step.node, step.inputs[0])
    assert isinstance(deviation, torch.Tensor)
    classes = p.shape[0] // y.shape[0]
    y, deviation = y.repeat_interleave(classes, 0), deviation.repeat_interleave(classes, 0)
    return [Relevance((p - p.mean(axes, keepdim=True) - y * (p * y).mean(axes, keepdim=True)) / deviation)]


register_rule("mvn", "pass", rule_sets=["conserving"], needs="")(pass_through)


@operation("normalize", keeps_non_negative=False)
def normalize(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    square = (xs[0] * xs[0]).sum(tuple(node.attrs["axes"]), keepdim=True)
    return [xs[0] / (square + node.attrs["eps"]).sqrt() * params["scale"]]


register_rule("normalize", "pass", rule_sets=["conserving"], needs="")(pass_through)


@operation("standardize")
def standardize(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """x less its mean over `axes`, over the root of its variance plus eps; `groups` of channels are apart."""
    x, axes, groups = xs[0], tuple(node.attrs["axes"]), node.attrs.get("groups")
    if groups is None:
        return [_standardized(x, axes, node.attrs["eps"])]
    if x.shape[1] % groups:
        raise ShapeError(f"layer '{node.name}': {x.shape[1]} channels in {groups} groups")
    parts = x.reshape(x.shape[0], groups, -1)
    return [_standardized(parts, (2,), node.attrs["eps"]).reshape(x.shape)]


def _standardized(x: torch.Tensor, axes: tuple[int, ...], eps: float) -> torch.Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + eps)


register_rule("standardize", "pass", needs="")(pass_through)
