"""Convolution, fully connected and transposed convolution: the layers with signed weights, which share.

"caffe": P = x * W+^T (p / (W+ x)); no bias, no epsilon, signed x gives signed shares (paper section 3.3, eq. 4
and 5, and the original's excitation backward passes of its convolution and inner product layers).
"conserving": contributions W+ x+ and W- x-, both positive, share; where a neuron has none, its p is spread evenly
over its window, so that nothing is lost.

Where a plan's precision is "tf32" or "bf16", a convolution that tensor cores can take rounds x and W+ alike for the
normaliser, the sweep and the product p = x * t, so that as much comes out as went in, and splits r into two summands.
Every other layer keeps its dtype: fully connected ones, which few rows keep short and which lose most by rounding,
transposed convolutions, and those of other channel counts (the first layer, depthwise ones).

On CUDA the forward convolutions never round to tf32. Forward fully connected layers are torch's matrix products, which
do so only where the process asks for it (torch.backends.cuda.matmul.allow_tf32, off by default).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .. import ops
from ..errors import ShapeError, UnsupportedError
from ..graph import Node
from ..ops.rounding import split
from .convolution import convolution, transposed_convolution
from .deferred import Product, Swept
from .registry import Step, operation, register_rule
from .relevance import Relevance
from .spatial import Spatial
from .tiled import down_on_tiles, forward_on_tiles, normalizer_on_tiles, with_normalizer
from .window import Window

Tensors = Sequence[torch.Tensor]


def rounds(node: Node, weight: torch.Tensor, precision: str) -> bool:
    """Whether the layer's products round to a plan's precision: tensor cores can take it, up and down."""
    if node.op != "conv" or precision == "fp32":
        return False
    above, below = weight.shape[:2]
    return below % 4 == 0 and above // node.attrs["groups"] % 4 == 0


def _precision(step: Step) -> str:
    return step.precision if rounds(step.node, step.params["weight"], step.precision) else "fp32"


def _fully_connected(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x [..., I] with weight [O, I] -> [..., O]."""
    if not x.is_cuda:
        return F.linear(x, weight)
    planes = ops.conv2d_normalizer(x.reshape(-1, x.shape[-1], 1, 1), weight[:, :, None, None], *_POINT)
    return planes.reshape(*x.shape[:-1], -1)


def _fully_connected_down(
    r: torch.Tensor, weight: torch.Tensor, gate: torch.Tensor | None = None, addend: torch.Tensor | None = None
) -> torch.Tensor:
    """r [..., O] with weight [O, I] -> [..., I], plus the addend, times the gate; neither of the two in a sequence."""
    if not r.is_cuda and gate is None and addend is None:
        return r @ weight
    gate, addend = (None if t is None else t[:, :, None, None] for t in (gate, addend))
    points, kernel = r.reshape(-1, r.shape[-1], 1, 1), weight[:, :, None, None]
    planes = ops.conv2d_sweep(points, kernel, (1, 1), *_POINT, gate=gate, addend=addend)
    return planes.reshape(*r.shape[:-1], -1)


_POINT = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
"""The geometry of a fully connected layer as a convolution of one pixel: torch's product is not ours to make exact."""


def apply(node: Node, x: torch.Tensor, weight: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """L x for the layer's linear map with the given weights, without bias."""
    if node.op == "linear":
        return _fully_connected(x, weight)
    if node.op == "conv_transpose":
        return _conv_transpose(node, x, weight, None)
    return Window(node, weight).convolve(x, weight, precision)


def adjoint(
    node: Node, r: torch.Tensor, weight: torch.Tensor, shape: torch.Size, precision: str = "fp32"
) -> torch.Tensor:
    """L^T r, with the trailing dims of the layer's input `shape`."""
    if node.op == "linear":
        return _fully_connected_down(r, weight)
    window = Window(node, weight)
    if node.op == "conv_transpose":
        t = window.convolve(r, weight)  # may reach beyond the input where output_padding added rows that it never saw
        for axis, n in enumerate(shape[2:], start=2):
            t = t.narrow(axis, 0, n)
        return t
    return window.transposed(r, weight, shape[2:], precision)


def _packed_adjoint(step: Step, r: torch.Tensor, name: str) -> torch.Tensor:
    """`adjoint` with a packed weight, by the faster way where there are two."""
    weight, precision = step.packed(name), _precision(step)
    if step.node.op == "conv" and weight.device.type == "cpu":
        window = Window(step.node, weight)
        if window.flips:
            flipped = step.packed(name + "^T")
            return window.convolve_flipped(split(r, precision), ops.rounded(flipped, precision))
    return adjoint(step.node, r, weight, step.shapes[0], precision)


def _down(step: Step, r: torch.Tensor, name: str, x: torch.Tensor) -> Relevance:
    """x * L^T r, with a packed weight and the factor x that its normaliser was made of."""
    precision = _precision(step)
    if step.fused and step.node.op == "conv" and x.dim() < 5:
        window, weight, size = Window(step.node, step.packed(name)), step.packed(name), x.shape[2:]
        return Swept(lambda gate, addend: window.transposed(r, weight, size, precision, gate, addend), x, precision)
    if step.fused and step.node.op == "linear" and x.dim() == 2:
        flat = step.packed(name)
        return Swept(lambda gate, addend: _fully_connected_down(r, flat, gate, addend), x, precision)
    if precision == "fp32" and r.is_cpu and _is_product(step.node, step.params["weight"]):
        return Product(r, step.packed(name).flatten(1), x)
    return Relevance(_packed_adjoint(step, r, name), x, precision)


def _is_product(node: Node, weight: torch.Tensor) -> bool:
    """Whether the layer is one matrix product for all pixels of its planes: an ordinary 1 x 1 convolution."""
    attrs = node.attrs
    if node.op != "conv" or weight.shape[2:] != (1, 1) or attrs["groups"] != 1:
        return False
    return (*attrs["stride"], *attrs["padding"], *attrs["padding_end"]) == (1, 1, 0, 0, 0, 0)


def _conv_transpose(node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    attrs, rank = node.attrs, Spatial.of(node, "transposed convolution", weight).rank
    if attrs["padding"] != attrs["padding_end"]:
        raise UnsupportedError(
            f"layer '{node.name}': transposed convolution with padding {attrs['padding']} to {attrs['padding_end']}, "
            "wanted the same on both sides"
        )
    window = {key: attrs[key] for key in ("stride", "padding", "dilation", "groups")}
    extra = attrs["output_padding"] or (0,) * rank
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


def forward_with_normalizer(
    node: Node,
    params: Mapping[str, torch.Tensor],
    xs: Tensors,
    saved: dict[str, Any],
    packed: Callable[[str], torch.Tensor],
    as_gate: bool,
    relu: bool = True,
) -> Tensors:
    """The forward of a convolution on planes, and of the ReLU behind it, saving its normaliser z, or the gate y / z."""
    found = forward_on_tiles(node, params, xs, saved, as_gate, relu=relu)
    if found is not None:
        return found
    weight, weight_plus, bias = params["weight"], packed("weight+"), params.get("bias")
    window = Window(node, weight).geometry
    y, side = ops.conv2d_excitation(xs[0], weight, weight_plus, bias, *window, relu=relu, as_gate=as_gate)
    return with_normalizer(saved, y, side, as_gate)


def hand_on_forward(node: Node, params: Mapping[str, torch.Tensor], xs: Tensors, saved: dict[str, Any]) -> Tensors:
    """A ReLU that the convolution before it has computed."""
    return xs


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


def _normalizer(step: Step, x: torch.Tensor, name: str, precision: str) -> torch.Tensor:
    """z = L x with the packed weight of that name."""
    z = normalizer_on_tiles(step.node, x, step.params["weight"], name) if precision == "fp32" else None
    return apply(step.node, x, step.packed(name), precision) if z is None else z


@register_rule("conv", "share", rule_sets=["caffe"], needs="x")
@register_rule("linear", "share", rule_sets=["caffe"], needs="x")
def share_excitation(step: Step, above: Sequence[Relevance | None]) -> list[Relevance | None]:
    rel, x = above[0], step.inputs[0]
    assert rel is not None
    weight = "weight+" if step.sign > 0 else "weight-"
    precision = _precision(step)
    y, gate = step.saved.get("gate", (None, None))
    if y is not None and rel.factor is y and step.sign > 0:
        tiled = down_on_tiles(step, rel, weight, x, precision, lambda: (rel.s, gate))
        return [tiled or _down(step, rel.columns(gate), weight, x)]
    z = _kept(step, f"normalizer{step.sign:+d}", lambda: _normalizer(step, x, weight, precision))
    tiled = down_on_tiles(step, rel, weight, x, precision, lambda: rel.parted(z))
    return [tiled or _down(step, rel.over(z), weight, x)]


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
    precision = _precision(step)
    z = _kept(
        step,
        f"normalizer{step.sign:+d}",
        lambda: sum(apply(node, part, step.packed(w), precision) for part, w in parts),
    )
    r = rel.over(z)
    below = [_down(step, r, w, part) for part, w in parts]
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
