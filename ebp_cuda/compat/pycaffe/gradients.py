"""The original's two other backward passes, as rules over the same table of operations: gradient and deconvolution.

What Excitation Backprop leaves to the ordinary derivative needs no second rule. Here are the derivatives of the
layers for which it has a rule of its own, and the one thing that deconvolution changes: a ReLU lets the positive
part of the signal through, whatever its activation was (Zeiler and Fergus, ECCV 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ... import ops
from ...graph import Node
from ...rules import OPERATIONS, Rule, Saved, Step
from ...rules.pooling import Windows
from ...rules.relevance import Relevance

Relevances = Sequence[Relevance | None]
Derivative = Callable[[Step, torch.Tensor], Sequence[torch.Tensor]]

GRADIENT: dict[str, Rule] = {}
"""Operations whose derivative is not what the "caffe" rule set has for them."""


def backward_rule(node: Node, mode: str) -> Rule | None:
    """The rule of a layer in the backward mode "eb", "gradient" or "dc"; None where there is none."""
    entry = OPERATIONS.get(node.op)
    excitation = entry.rules.get("caffe") if entry else None
    if mode == "dc" and node.op == "relu":
        return _DECONVOLUTION
    return excitation if mode == "eb" else GRADIENT.get(node.op, excitation)


def derivative(*names: str, needs: str = "") -> Callable[[Derivative], Derivative]:
    """Decorator: the function takes (step, signal at the output) and returns the signals at the inputs."""

    def enter(function: Derivative) -> Derivative:
        def down(step: Step, above: Relevances) -> list[Relevance | None]:
            assert above[0] is not None
            return [Relevance(signal) for signal in function(step, above[0].p())]

        for name in names:
            GRADIENT[name] = Rule("gradient", down, needs)
        return function

    return enter


def _rectify(step: Step, above: Relevances) -> list[Relevance | None]:
    assert above[0] is not None
    return [Relevance(above[0].p().clamp(min=0))]


_DECONVOLUTION = Rule("gradient", _rectify, "")


@derivative("conv", "linear", "conv_transpose")
def _contraction(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    return [step.linear.transpose(p, step.shapes[0]).tensor()]


@derivative("avg_pool", needs="x")
def _average(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    w = Windows(step.node, step.inputs[0])
    ones = torch.ones_like(w.spatial.plane(step.inputs[0][:1, :1]))
    inside = ops.window_sum(ones, w.kernel, w.stride, w.padding, w.out_size)
    whole = bool(step.node.attrs.get("count_include_pad", True))
    share = ops.avg_pool2d(ones, w.kernel, w.stride, w.padding, w.out_size, whole) / inside
    r = w.spatial.plane(p) * torch.nan_to_num(share)  # 1 / divisor; a window with nothing inside has no gradient
    return [w.spatial.back(ops.window_spread(r, w.in_size, w.kernel, w.stride, w.padding))]


@derivative("lrn", needs="xy")
def _local_response(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    """d/dx of x * scale ** -beta with scale = k + alpha / n * (sum of x^2 over the n neighbors)."""
    x, y, attrs = step.inputs[0], step.outputs[0], step.node.attrs
    size, beta = int(attrs["size"]), float(attrs["beta"])
    across = attrs.get("region", "across") == "across"
    factor = float(attrs["alpha"]) / (size if across else size**2)
    neighbors = _channel_sum if across else _plane_sum
    scale = float(attrs["k"]) + factor * neighbors(x * x, size)
    return [p * scale**-beta - 2 * factor * beta * x * neighbors(p * y / scale, size)]


def _channel_sum(x: torch.Tensor, size: int) -> torch.Tensor:
    half = (size - 1) // 2
    padded = F.pad(x, (0, 0, 0, 0, half, size - 1 - half))
    total = padded[:, : x.shape[1]].clone()
    for offset in range(1, size):
        total += padded[:, offset : offset + x.shape[1]]
    return total


def _plane_sum(x: torch.Tensor, size: int) -> torch.Tensor:
    half = (size - 1) // 2
    return ops.window_sum(x, [size, size], [1, 1], [half, half], list(x.shape[2:]))


@derivative("batch_norm")
def _batch_norm(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    scale = (step.params["var"] + step.node.attrs["eps"]).rsqrt() * step.params.get("weight", 1.0)
    return [p * scale.reshape(1, -1, *[1] * (p.dim() - 2))]


@derivative("affine")
def _affine(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    return [p * step.params["scale"] if "scale" in step.params else p]


@derivative("sum")
def _sum(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    coefficients = step.node.attrs.get("coefficients") or (1.0,) * len(step.shapes)
    return [p if c == 1 else c * p for c in coefficients]


@derivative("mean", "mul", "normalize", "resize", needs="x")
def _by_autograd(step: Step, p: torch.Tensor) -> list[torch.Tensor]:
    with torch.enable_grad():
        xs = [x.detach().requires_grad_() for x in step.inputs]
        y = OPERATIONS[step.node.op].forward(step.node, step.params, xs, Saved())[0]
        gradients = torch.autograd.grad(y, xs, p, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, xs, strict=True)]
