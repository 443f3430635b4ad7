"""Layers that act on one element (or one channel group) at a time: relevance passes, or takes the derivative.

"caffe": LRN, batch norm and Scale hand p on unchanged; whatever has no rule of its own in the original gets its
ordinary gradient (ReLU's is the mask y > 0). "conserving": all of them hand p on unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .. import ops
from ..errors import ShapeError
from ..graph import Node
from ..relevance import Relevance
from .registry import RULE_SETS, Step, operation, register_rule

Tensors = Sequence[torch.Tensor]
Params = Mapping[str, torch.Tensor]
Derivative = Callable[[Step], torch.Tensor]


def _per_channel(param: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A parameter [C] shaped to broadcast against x [N, C, ...]; a single element stays as it is."""
    return param if param.numel() == 1 else param.reshape(1, -1, *([1] * (x.dim() - 2)))


def hand_on(step: Step, above: Sequence[Relevance | None]) -> Sequence[Relevance | None]:
    return above


def _pointwise(
    name: str,
    function: Callable[[Node, Params, torch.Tensor], torch.Tensor],
    derivative: Derivative,
    needs: str,
    non_negative: bool = False,
    keeps: bool = False,
) -> None:
    """Enters an element-wise layer: `function` forward, `derivative` as its rule in "caffe", pass in "conserving"."""

    def forward(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
        return [function(node, params, xs[0])]

    def down(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
        assert above[0] is not None
        return [above[0].gated(derivative(step))]

    operation(name, always_non_negative=non_negative, keeps_non_negative=keeps)(forward)
    register_rule(name, "gradient", rule_sets=["caffe"], needs=needs)(down)
    register_rule(name, "pass", rule_sets=["conserving"], needs="")(hand_on)


@operation("relu", always_non_negative=True, overwrites=True)
def relu(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
    return [xs[0].relu_() if saved.get("overwrite") else xs[0].relu()]


@register_rule("relu", "gradient", rule_sets=["caffe"], needs="y")
def mask(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel, y = above[0], step.outputs[0]
    assert rel is not None
    return [rel if rel.x is y else rel.gated((y > 0).to(y.dtype))]  # y is its own mask where it is the factor


register_rule("relu", "pass", rule_sets=["conserving"], needs="")(hand_on)


def _sigmoid_slope(step: Step) -> torch.Tensor:
    y = step.outputs[0]
    return y * (1 - y)


def _between(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


def _leaky(x: torch.Tensor, slope: torch.Tensor | float) -> torch.Tensor:
    return torch.where(x > 0, torch.ones_like(x), torch.as_tensor(slope, dtype=x.dtype, device=x.device))


def _x(step: Step) -> torch.Tensor:
    return step.inputs[0]


def _attr(step: Step, name: str) -> float:
    return float(step.node.attrs[name])


def _normal_density(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _power_slope(step: Step) -> torch.Tensor:
    power, scale, shift = (_attr(step, name) for name in ("power", "scale", "shift"))
    return power * scale * (shift + scale * _x(step)) ** (power - 1)


def _elu_slope(step: Step) -> torch.Tensor:
    x, y = _x(step), step.outputs[0]
    return torch.where(x > 0, torch.ones_like(x), y + _attr(step, "alpha"))


def _enter_all() -> None:
    enter = _pointwise
    enter("leaky_relu", lambda n, p, x: F.leaky_relu(x, n.attrs["slope"]), lambda s: _leaky(_x(s), _attr(s, "slope")), "x", keeps=True)
    enter("prelu", lambda n, p, x: F.prelu(x, p["weight"]), lambda s: _leaky(_x(s), _per_channel(s.params["weight"], _x(s))), "x", keeps=True)
    enter("elu", lambda n, p, x: F.elu(x, n.attrs["alpha"]), _elu_slope, "xy", keeps=True)
    enter("clip", lambda n, p, x: x.clamp(n.attrs["min"], n.attrs["max"]), lambda s: _between(_x(s), _attr(s, "min"), _attr(s, "max")), "x", keeps=True)
    enter("abs", lambda n, p, x: x.abs(), lambda s: _x(s).sign(), "x", non_negative=True)
    enter("exp", lambda n, p, x: x.exp(), lambda s: s.outputs[0], "y", non_negative=True)
    enter("log", lambda n, p, x: x.log(), lambda s: 1 / _x(s), "x")
    enter("sqrt", lambda n, p, x: x.sqrt(), lambda s: 0.5 / s.outputs[0], "y", non_negative=True)
    enter("sigmoid", lambda n, p, x: x.sigmoid(), _sigmoid_slope, "y", non_negative=True)
    enter("tanh", lambda n, p, x: x.tanh(), lambda s: 1 - s.outputs[0] ** 2, "y", keeps=True)
    enter("softplus", lambda n, p, x: F.softplus(x), lambda s: _x(s).sigmoid(), "x", non_negative=True)
    enter("silu", lambda n, p, x: F.silu(x), lambda s: _x(s).sigmoid() * (1 + _x(s) * (1 - _x(s).sigmoid())), "x", keeps=True)
    enter("gelu", lambda n, p, x: F.gelu(x), lambda s: 0.5 * (1 + torch.erf(_x(s) / math.sqrt(2))) + _x(s) * _normal_density(_x(s)), "x", keeps=True)
    enter(
        "hard_sigmoid",
        lambda n, p, x: (n.attrs["alpha"] * x + n.attrs["beta"]).clamp(0, 1),
        lambda s: _attr(s, "alpha") * _between(s.outputs[0], 0, 1),
        "y",
        non_negative=True,
    )
    enter(
        "hard_swish",
        lambda n, p, x: F.hardswish(x),
        lambda s: torch.where(_x(s) >= 3, torch.ones_like(_x(s)), (_x(s) / 3 + 0.5) * (_x(s) > -3)),
        "x",
        keeps=True,
    )
    enter("power", lambda n, p, x: (n.attrs["shift"] + n.attrs["scale"] * x) ** n.attrs["power"], _power_slope, "x")


_enter_all()


@operation("softmax", always_non_negative=True)
def softmax(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
    return [xs[0].softmax(node.attrs["axis"])]


@register_rule("softmax", "gradient", rule_sets=["caffe"], needs="y")
def softmax_gradient(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel, axis = above[0], step.node.attrs["axis"]
    assert rel is not None
    y = step.outputs[0]
    p = rel.p()
    y = y.repeat_interleave(p.shape[0] // y.shape[0], 0)
    return [Relevance(y * (p - (p * y).sum(axis, keepdim=True)))]


register_rule("softmax", "pass", rule_sets=["conserving"], needs="")(hand_on)


@operation("lrn", keeps_non_negative=True)
def lrn(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
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
def batch_norm(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
    weight, bias = params.get("weight"), params.get("bias")
    return [F.batch_norm(xs[0], params["mean"], params["var"], weight, bias, False, 0.0, node.attrs["eps"])]


@operation("affine")
def affine(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
    y = xs[0]
    if "scale" in params:
        y = y * params["scale"]
    if "shift" in params:
        y = y + params["shift"]
    return [y]


@operation("identity", keeps_non_negative=True)
def identity(node: Node, params: Params, xs: Tensors, saved: dict[str, Any]) -> Tensors:
    return xs


for _name in ("lrn", "batch_norm", "affine", "identity"):
    register_rule(_name, "pass", rule_sets=RULE_SETS, needs="")(hand_on)
