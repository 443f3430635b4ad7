"""Layers that act on one element (or one channel group) at a time: relevance passes, or takes the derivative.

"caffe": LRN, batch norm and Scale hand p on unchanged; whatever has no rule of its own in the original gets its
ordinary gradient (ReLU's is the mask y > 0). "conserving": all of them hand p on unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .. import ops
from ..errors import ShapeError
from ..graph import Node
from .registry import RULE_SETS, Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved

Attrs = Mapping[str, Any]


def _per_channel(param: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A parameter [C] shaped to broadcast against x [N, C, ...]; a single element stays as it is."""
    return param if param.numel() == 1 else param.reshape(1, -1, *([1] * (x.dim() - 2)))


def pass_through(step: Step, above: Relevances) -> Sequence[Relevance | None]:
    """p_below = p."""
    return above


@operation("relu", always_non_negative=True, overwrites=True)
def relu(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].relu_() if saved.overwrite else xs[0].relu()]


@register_rule("relu", "gradient", rule_sets=["caffe"], needs="y")
def mask_by_output(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = p where y > 0, 0 elsewhere: the ordinary gradient."""
    rel, y = only(above), step.outputs[0]
    return [rel if rel.x is y else rel.times((y > 0).to(y.dtype))]  # y is its own mask where it is the factor


register_rule("relu", "pass", rule_sets=["conserving"], needs="")(pass_through)


@dataclass(frozen=True)
class Function:
    """An element-wise layer: y = value(attrs, params, x), dy/dx = slope(attrs, params, x, y)."""

    value: Callable[[Attrs, Params, torch.Tensor], torch.Tensor]
    slope: Callable[[Attrs, Params, torch.Tensor, torch.Tensor], torch.Tensor]
    non_negative: bool = False
    """Whether no output is below zero; otherwise none is where no input is, if `keeps`."""
    keeps: bool = False


def _inside(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


def _one_above_zero(x: torch.Tensor, below: torch.Tensor | float) -> torch.Tensor:
    return torch.where(x > 0, torch.ones_like(x), below)


def _silu_slope(a: Attrs, p: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    beta = a.get("beta", 1.0)
    gate = (beta * x).sigmoid()
    return gate * (1 + beta * x * (1 - gate))


def _line(a: Attrs, x: torch.Tensor) -> torch.Tensor:
    scale, shift = a.get("scale", 1.0), a.get("shift", 0.0)
    return x if (scale, shift) == (1.0, 0.0) else scale * x + shift


def _gelu_slope(a: Attrs, p: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if a.get("tanh"):
        inner = math.sqrt(2 / math.pi)
        gate = torch.tanh(inner * (x + 0.044715 * x**3))
        return 0.5 * (1 + gate) + 0.5 * x * (1 - gate * gate) * inner * (1 + 3 * 0.044715 * x * x)
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density


def _hard_swish_slope(a: Attrs, p: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 3, torch.ones_like(x), (x / 3 + 0.5) * (x > -3))


def _power_slope(a: Attrs, p: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return a["power"] * a["scale"] * (a["shift"] + a["scale"] * x) ** (a["power"] - 1)


FUNCTIONS = {
    "leaky_relu": Function(
        lambda a, p, x: F.leaky_relu(x, a["slope"]),
        lambda a, p, x, y: _one_above_zero(x, a["slope"]),
        keeps=True,
    ),
    "prelu": Function(
        lambda a, p, x: F.prelu(x, p["weight"]),
        lambda a, p, x, y: _one_above_zero(x, _per_channel(p["weight"], x)),
        keeps=True,
    ),
    "elu": Function(
        lambda a, p, x: F.elu(x, a["alpha"]) if a["scale"] == 1 else a["scale"] * F.elu(x, a["alpha"]),
        lambda a, p, x, y: torch.where(x > 0, a["scale"], y + a["scale"] * a["alpha"]),
        keeps=True,
    ),
    "clip": Function(
        lambda a, p, x: x.clamp(a["min"], a["max"]),
        lambda a, p, x, y: _inside(x, a["min"], a["max"]),
        keeps=True,
    ),
    "abs": Function(lambda a, p, x: x.abs(), lambda a, p, x, y: x.sign(), non_negative=True),
    "exp": Function(lambda a, p, x: _line(a, x).exp(), lambda a, p, x, y: a.get("scale", 1.0) * y, non_negative=True),
    "log": Function(
        lambda a, p, x: _line(a, x).log() * a.get("factor", 1.0),
        lambda a, p, x, y: a.get("factor", 1.0) * a.get("scale", 1.0) / _line(a, x),
    ),
    "sqrt": Function(lambda a, p, x: x.sqrt(), lambda a, p, x, y: 0.5 / y, non_negative=True),
    "sigmoid": Function(lambda a, p, x: x.sigmoid(), lambda a, p, x, y: y * (1 - y), non_negative=True),
    "tanh": Function(lambda a, p, x: x.tanh(), lambda a, p, x, y: 1 - y * y, keeps=True),
    "erf": Function(lambda a, p, x: x.erf(), lambda a, p, x, y: 2 / math.sqrt(math.pi) * torch.exp(-x * x), keeps=True),
    "softplus": Function(lambda a, p, x: F.softplus(x), lambda a, p, x, y: x.sigmoid(), non_negative=True),
    "silu": Function(
        lambda a, p, x: F.silu(x) if a["beta"] == 1 else x * torch.sigmoid(a["beta"] * x), _silu_slope, keeps=True
    ),
    "gelu": Function(
        lambda a, p, x: F.gelu(x, approximate="tanh" if a.get("tanh") else "none"), _gelu_slope, keeps=True
    ),
    "hard_sigmoid": Function(
        lambda a, p, x: (a["alpha"] * x + a["beta"]).clamp(0, 1),
        lambda a, p, x, y: a["alpha"] * _inside(y, 0, 1),
        non_negative=True,
    ),
    "hard_swish": Function(lambda a, p, x: F.hardswish(x), _hard_swish_slope, keeps=True),
    "power": Function(lambda a, p, x: (a["shift"] + a["scale"] * x) ** a["power"], _power_slope),
}


def enter_function(name: str, function: Function) -> None:
    """`function` forward, its slope as the rule in "caffe", pass in "conserving"."""

    @operation(name, always_non_negative=function.non_negative, keeps_non_negative=function.keeps)
    def forward(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
        return [function.value(node.attrs, params, xs[0])]

    @register_rule(name, "gradient", rule_sets=["caffe"])
    def down(step: Step, above: Relevances) -> list[Relevance | None]:
        return [only(above).times(function.slope(step.node.attrs, step.params, step.inputs[0], step.outputs[0]))]

    register_rule(name, "pass", rule_sets=["conserving"], needs="")(pass_through)


for _name, _function in FUNCTIONS.items():
    enter_function(_name, _function)


@operation("softmax", always_non_negative=True)
def softmax(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [xs[0].softmax(node.attrs["axis"])]


@register_rule("softmax", "gradient", rule_sets=["caffe"], needs="y")
def softmax_gradient(step: Step, above: Relevances) -> list[Relevance | None]:
    """p_below = y * (p - sum of p * y): the ordinary gradient."""
    rel, axis = only(above), step.node.attrs["axis"]
    y = step.outputs[0]
    p = rel.p()
    y = y.repeat_interleave(p.shape[0] // y.shape[0], 0)
    return [Relevance(y * (p - (p * y).sum(axis, keepdim=True)))]


register_rule("softmax", "pass", rule_sets=["conserving"], needs="")(pass_through)


@operation("lrn", keeps_non_negative=True)
def lrn(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    x, attrs = xs[0], node.attrs
    size, alpha, beta, k = int(attrs["size"]), float(attrs["alpha"]), float(attrs["beta"]), float(attrs["k"])
    if x.dim() != 4:
        raise ShapeError(f"layer '{node.name}': LRN input has shape {list(x.shape)}, wanted [N, C, H, W]")
    if attrs.get("region", "across") == "across":
        return [ops.lrn(x, size, alpha, beta, k)]
    half = (size - 1) // 2
    squares = ops.window_sum(x * x, [size, size], [1, 1], [half, half], list(x.shape[2:]))
    return [x * (k + squares * (alpha / size**2)) ** -beta]


@operation("batch_norm")
def batch_norm(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    weight, bias = params.get("weight"), params.get("bias")
    return [F.batch_norm(xs[0], params["mean"], params["var"], weight, bias, False, 0.0, node.attrs["eps"])]


@operation("affine")
def affine(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    y = xs[0]
    if "scale" in params:
        y = y * params["scale"]
    if "shift" in params:
        y = y + params["shift"]
    return [y]


@operation("identity", keeps_non_negative=True)
def identity(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return xs


@operation("threshold", always_non_negative=True)
def threshold(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    return [(xs[0] > node.attrs["threshold"]).to(xs[0].dtype)]


register_rule("threshold", "pass", rule_sets=["conserving"], needs="")(pass_through)  # the original aborts on it


for _name in ("lrn", "batch_norm", "affine", "identity"):
    register_rule(_name, "pass", rule_sets=RULE_SETS, needs="")(pass_through)
