"""Convolution, fully connected and transposed convolution: the layers with signed weights, which share.

"caffe": P = x * W+^T (p / (W+ x)); no bias, no epsilon, signed x gives signed shares (paper section 3.3, eq. 4
and 5, and the original's excitation backward passes of its convolution and inner product layers).
"conserving": contributions W+ x+ and W- x-, both positive, share; where a neuron has none, its p is spread evenly
over its window, so that nothing is lost.

On CUDA, convolutions never round to tf32. Fully connected layers are torch's matrix products, which do so only where
the process asks for it (torch.backends.cuda.matmul.allow_tf32, off by default).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .. import ops
from ..errors import ShapeError, UnsupportedError
from ..graph import Node
from ..relevance import Relevance
from .convolution import convolution, transposed_convolution
from .registry import Step, operation, register_rule
from .spatial import Spatial

Tensors = Sequence[torch.Tensor]


class Window:
    """Geometry of a (transposed) convolution on planes."""

    def __init__(self, node: Node, weight: torch.Tensor) -> None:
        self.on, attrs = Spatial.of(node, "convolution", weight), node.attrs
        self.kernel, self.groups = self.on.settings(weight.shape[2:], 1), attrs["groups"]
        self.stride, self.dilation = self.on.settings(attrs["stride"], 1), self.on.settings(attrs["dilation"], 1)
        self.pads = self.on.settings(attrs["padding"], 0) + self.on.settings(attrs["padding_end"], 0)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        plane, kernel = self.on.plane(x), self.on.plane(weight)
        return self.on.back(ops.conv2d_normalizer(plane, kernel, self.stride, self.pads, self.dilation, self.groups))

    def transposed(self, r: torch.Tensor, weight: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        plane, kernel, in_size = self.on.plane(r), self.on.plane(weight), self.on.settings(size, 1)
        t = ops.conv2d_sweep(plane, kernel, in_size, self.stride, self.pads, self.dilation, self.groups)
        return self.on.back(t)

    @property
    def flips(self) -> bool:
        """Whether the transposed convolution is a plain one with the flipped kernel, the faster of the two on a CPU."""
        fits = all(p <= d * (k - 1) for p, d, k in zip(self.pads, self.dilation * 2, self.kernel * 2, strict=True))
        return self.stride == [1, 1] and self.groups == 1 and fits and self.on.rank == 2

    def convolve_flipped(self, r: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
        pads = [d * (k - 1) - p for p, d, k in zip(self.pads, self.dilation * 2, self.kernel * 2, strict=True)]
        return ops.conv2d_normalizer(r, flipped, self.stride, pads, self.dilation, 1)


def apply(node: Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L x for the layer's linear map with the given weights, without bias."""
    if node.op == "linear":
        return F.linear(x, weight)
    if node.op == "conv_transpose":
        return _conv_transpose(node, x, weight, None)
    return Window(node, weight).convolve(x, weight)


def adjoint(node: Node, r: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """L^T r, with the trailing dims of the layer's input `shape`."""
    if node.op == "linear":
        return r @ weight
    window = Window(node, weight)
    if node.op == "conv_transpose":
        t = window.convolve(r, weight)  # may reach beyond the input where output_padding added rows that it never saw
        for axis, n in enumerate(shape[2:], start=2):
            t = t.narrow(axis, 0, n)
        return t
    return window.transposed(r, weight, shape[2:])


def _packed_adjoint(step: Step, r: torch.Tensor, name: str) -> torch.Tensor:
    """`adjoint` with a packed weight, by the faster way where there are two."""
    weight = step.packed(name)
    if step.node.op == "conv" and weight.device.type == "cpu":
        window = Window(step.node, weight)
        if window.flips:
            return window.convolve_flipped(r, step.packed(name + "^T"))
    return adjoint(step.node, r, weight, step.shapes[0])


def _conv_transpose(node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    attrs, rank = node.attrs, Spatial.of(node, "transposed convolution", weight).rank
    if attrs["padding"] != attrs["padding_end"]:
        raise UnsupportedError(
            f"layer '{node.name}': transposed convolution with padding {attrs['padding']} to {attrs['padding_end']}, "
            "wanted the same on both sides"
        )
    window = {key: attrs[key] for key in ("stride", "padding", "dilation", "groups")}
    extra = attrs.get("output_padding", (0,) * rank)
    return transposed_convolution(x, weight, bias, output_padding=extra, **window)


@operation("conv", is_contraction=True)
def conv(node: Node, params: Mapping[str, torch.Tensor], xs: Tensors, saved: dict[str, Any]) -> Tensors:
    x, weight = xs[0], params["weight"]
    attrs, rank = node.attrs, Spatial.of(node, "convolution", weight).rank
    if x.dim() != rank + 2 or x.shape[1] != weight.shape[1] * attrs["groups"]:
        wanted = f"[N, {weight.shape[1] * attrs['groups']}] and {rank} spatial axes"
        raise ShapeError(f"layer '{node.name}': input has shape {list(x.shape)}, wanted {wanted}")
    padding = attrs["padding"]
    if padding != attrs["padding_end"]:
        both = [n for pair in zip(padding[::-1], attrs["padding_end"][::-1], strict=True) for n in pair]
        x, padding = F.pad(x, both), (0,) * rank
    window = {key: attrs[key] for key in ("stride", "dilation", "groups")}
    return [convolution(x, weight, params.get("bias"), padding=padding, **window)]


@operation("conv_transpose", is_contraction=True)
def conv_transpose(node: Node, params: Mapping[str, torch.Tensor], xs: Tensors, saved: dict[str, Any]) -> Tensors:
    return [_conv_transpose(node, xs[0], params["weight"], params.get("bias"))]


@operation("linear", is_contraction=True)
def linear(node: Node, params: Mapping[str, torch.Tensor], xs: Tensors, saved: dict[str, Any]) -> Tensors:
    if xs[0].shape[-1] != params["weight"].shape[1]:
        wanted = f"{params['weight'].shape[1]} features"
        raise ShapeError(f"layer '{node.name}': input has shape {list(xs[0].shape)}, wanted {wanted} on the last axis")
    return [F.linear(xs[0], params["weight"], params.get("bias"))]


def _kept(step: Step, name: str, make: Any) -> torch.Tensor:
    """A tensor that every sweep of this forward shares, made at the first."""
    if name not in step.saved:
        step.saved[name] = make()
    return step.saved[name]


@register_rule("conv", "share", rule_sets=["caffe"], needs="x")
@register_rule("linear", "share", rule_sets=["caffe"], needs="x")
def share_excitation(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel, node, x = above[0], step.node, step.inputs[0]
    assert rel is not None
    weight = "weight+" if step.sign > 0 else "weight-"
    z = _kept(step, f"normalizer{step.sign:+d}", lambda: apply(node, x, step.packed(weight)))
    return [Relevance(_packed_adjoint(step, rel.over(z), weight), x)]


@register_rule("conv_transpose", "gradient", rule_sets=["caffe"], needs="")
def gradient_of_deconvolution(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel = above[0]
    assert rel is not None
    t = adjoint(step.node, rel.p(), step.params["weight"], step.shapes[0])
    return [Relevance(t if step.sign > 0 else -t)]


@register_rule("conv", "share", rule_sets=["conserving"], needs="x")
@register_rule("linear", "share", rule_sets=["conserving"], needs="x")
@register_rule("conv_transpose", "share", rule_sets=["conserving"], needs="x")
def share_conserving(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel, node, x = above[0], step.node, step.inputs[0]
    assert rel is not None
    plus, minus = ("weight+", "weight-") if step.sign > 0 else ("weight-", "weight+")
    signed = not step.non_negative[0]
    parts = [(x.clamp(min=0), plus), ((-x).clamp(min=0), minus)] if signed else [(x, plus)]
    z = _kept(step, f"normalizer{step.sign:+d}", lambda: sum(apply(node, part, step.packed(w)) for part, w in parts))
    r = rel.over(z)
    below = [Relevance(_packed_adjoint(step, r, w), part) for part, w in parts]
    unshared = _unshared(step, rel, z)
    if len(below) == 1 and unshared is None:
        return [below[0]]
    p = below[0].p()
    for part in below[1:]:
        p = p + part.p()
    return [Relevance(p if unshared is None else p + unshared)]


def _unshared(step: Step, rel: Relevance, z: torch.Tensor) -> torch.Tensor | None:
    """What neurons without any excitation hold, spread evenly over the inputs of their windows; None if nothing."""
    silent = z == 0
    if not bool(silent.any()):
        return None
    p = rel.gated(silent.to(z.dtype)).p()
    if not bool(p.any()):
        return None
    ones = torch.ones_like(step.params["weight"])
    inside = _kept(step, "window_size", lambda: apply(step.node, torch.ones_like(step.inputs[0]), ones))
    return adjoint(step.node, ops.share(p, inside), ones, step.shapes[0])
