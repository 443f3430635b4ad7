"""A graph as a torch module with ordinary layers, so that libraries that hook `nn.Module`s (captum) or put functions of
their own in the place of torch's (TorchRay) can explain it.

The module computes what the graph does and shares nothing with it: weights are copies, because captum's LRP moves them.
Convolutions, fully connected layers, ReLUs, pools and batch norms are torch's own layers, which captum knows by type;
every other layer runs the forward that the engine runs, as long as torch can differentiate it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError, UnsupportedError
from ..extras import require
from ..graph import Graph, Node
from ..rules import OPERATIONS, Saved

_PLAIN = {
    "abs", "affine", "batch_norm", "clip", "concat", "crop", "elu", "exp", "expand", "flatten", "gelu",
    "hard_sigmoid", "hard_swish", "identity", "leaky_relu", "log", "max", "mean", "mul", "mvn", "normalize",
    "pad", "power", "prelu", "reduce", "reshape", "resize", "select", "sigmoid", "silu", "slice", "softmax",
    "softplus", "split", "sqrt", "squeeze", "sum", "tanh", "tile", "transpose", "unsqueeze"
}  # fmt: skip
"""Operations whose forward in ebp_cuda.rules is made of torch functions with a gradient."""
_MOVES = {
    "concat", "crop", "expand", "flatten", "identity", "pad", "reshape", "select", "slice", "split", "squeeze",
    "transpose", "unsqueeze",
}  # fmt: skip
"""Of these, the ones through which the gradient hands relevance on as it should."""


_avg_pool3d = F.avg_pool3d  # the one of now: TorchRay puts another in its place while it runs, which fails here


class LocalResponseNorm(nn.Module):
    """Local response normalization; `passes`: its gradient is the identity, as relevance methods treat it."""

    def __init__(self, node: Node, passes: bool) -> None:
        super().__init__()
        self.attrs, self.passes = dict(node.attrs), passes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = int(self.attrs["size"])
        if self.attrs.get("region", "across") == "across":
            window = (size, 1, 1)
            pads = (0, 0, 0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2)
        else:
            window = (1, size, size)
            pads = ((size - 1) // 2, size - 1 - (size - 1) // 2) * 2 + (0, 0)
        energy = _avg_pool3d(F.pad((x * x).unsqueeze(1), pads), window, 1).squeeze(1)
        y = x / (energy * float(self.attrs["alpha"]) + float(self.attrs["k"])) ** float(self.attrs["beta"])
        return x + (y - x).detach() if self.passes else y


def _uneven(node: Node) -> tuple[int, ...] | None:
    """The padding as F.pad wants it where it differs between the two sides of an axis."""
    before, after = node.attrs["padding"], node.attrs["padding_end"]
    if tuple(before) == tuple(after):
        return None
    return tuple(n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair)


class _Padded(nn.Module):
    def __init__(self, pads: tuple[int, ...], value: float, layer: nn.Module) -> None:
        super().__init__()
        self.pads, self.value, self.layer = pads, value, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.layer(F.pad(x, self.pads, value=self.value)))


def _with(layer: nn.Module, node: Node) -> nn.Module:
    """`layer` with copies of the node's parameters in place of its own."""
    own = dict(layer.named_parameters())
    for name, tensor in node.params.items():
        if name in own:
            setattr(layer, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))
    return layer


def _convolution(node: Node) -> nn.Module:
    weight, attrs, pads = node.params["weight"], node.attrs, _uneven(node)
    if weight.dim() != 4:
        raise UnsupportedError(f"layer '{node.name}': {weight.dim() - 2} spatial axes; the other methods take images")
    conv = nn.Conv2d(
        weight.shape[1] * attrs["groups"],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        attrs["stride"],
        0 if pads else attrs["padding"],
        attrs["dilation"],
        attrs["groups"],
        bias="bias" in node.params,
        device="meta",
    )
    return _Padded(pads, 0.0, _with(conv, node)) if pads else _with(conv, node)


def _pool(node: Node) -> nn.Module:
    attrs, pads = node.attrs, _uneven(node) if node.attrs["kernel"] is not None else None
    if len(node.outputs) > 1 or (pads and node.op == "avg_pool"):
        raise UnsupportedError(f"layer '{node.name}': this pooling has no counterpart in torch")
    if attrs["kernel"] is None:
        return nn.AdaptiveAvgPool2d(1) if node.op == "avg_pool" else nn.AdaptiveMaxPool2d(1)
    kernel, stride, padding, ceil = attrs["kernel"], attrs["stride"], attrs["padding"], bool(attrs.get("ceil_mode"))
    if node.op == "avg_pool":
        return nn.AvgPool2d(kernel, stride, padding, ceil, bool(attrs.get("count_include_pad", True)))
    pool = nn.MaxPool2d(kernel, stride, 0 if pads else padding, attrs["dilation"], ceil_mode=ceil)
    return _Padded(pads, float("-inf"), pool) if pads else pool


class _SpatialMean(nn.Module):
    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.pool, self.keep = nn.AdaptiveAvgPool2d(1), keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pool(x)
        return y if self.keep else y.flatten(1)


def _batch_norm(node: Node) -> nn.Module:
    norm = _with(nn.BatchNorm2d(len(node.params["mean"]), node.attrs["eps"]), node)
    for name, source in (("running_mean", "mean"), ("running_var", "var")):
        setattr(norm, name, node.params[source].detach().clone())
    return norm


class Forward(nn.Module):
    """A node through its forward of ebp_cuda.rules; `outputs` are all it writes, calling it gives the first."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node

    def outputs(self, *xs: torch.Tensor) -> Sequence[torch.Tensor]:
        params = {name: t.detach().to(xs[0].device, xs[0].dtype) for name, t in self.node.params.items()}
        return OPERATIONS[self.node.op].forward(self.node, params, xs, Saved())

    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return self.outputs(*xs)[0]


def _module(node: Node, for_relevance: bool) -> nn.Module:
    if node.op == "conv":
        return _convolution(node)
    if node.op == "linear":
        out, into = node.params["weight"].shape
        return _with(nn.Linear(into, out, bias="bias" in node.params, device="meta"), node)
    if node.op == "relu":
        return nn.ReLU()
    if node.op == "clip" and node.attrs["min"] == 0 and not for_relevance:  # ReLU6: captum hooks the ReLU in it
        return nn.Sequential(nn.ReLU(), Forward(node))
    if node.op in ("max_pool", "avg_pool"):
        return _pool(node)
    if node.op == "lrn":
        return LocalResponseNorm(node, for_relevance)
    if for_relevance and (layer := _as_captum_knows_it(node)) is not None:
        return layer
    if for_relevance and node.op in _PLAIN - _MOVES:
        raise UnsupportedError(f"layer '{node.name}' ({node.op}): captum has no LRP rule for it")
    if node.op in _PLAIN:
        return Forward(node)
    raise UnsupportedError(f"layer '{node.name}' ({node.op}): has no gradient in torch, which the other methods need")


def _as_captum_knows_it(node: Node) -> nn.Module | None:
    """The layer of a node that captum's LRP has a rule for where the engine's forward would do otherwise."""
    if node.op == "batch_norm":
        return _batch_norm(node)
    if node.op == "mean" and tuple(node.attrs["axes"]) in ((2, 3), (-2, -1), (-1, -2)):
        return _SpatialMean(bool(node.attrs["keepdims"]))
    if node.op == "sum" and len(node.inputs) == 2 and not node.attrs.get("coefficients"):
        added: nn.Module = require("captum.attr._utils.custom_modules", "eval", "lrp").Addition_Module()
        return added
    if node.op == "tanh":
        return nn.Tanh()
    return None


class GraphModule(nn.Module):
    """The graph up to the value `top`, in eval mode; gives one score per class, [N, classes].

    A spatial top (fully convolutional network) becomes the log-sum-exp over positions: its gradient is the softmax over
    positions from which Excitation Backprop starts too.
    for_relevance: as captum's LRP wants it: LRN passes relevance on, sums are captum's addition layers, and what only
    moves values is no module. Raises UnsupportedError for several inputs and for a layer that torch cannot follow.
    """

    def __init__(self, graph: Graph, top: str, *, for_relevance: bool = False) -> None:
        super().__init__()
        if len(graph.inputs) != 1:
            raise UnsupportedError(f"{graph.origin}: {len(graph.inputs)} inputs; the other methods take one image")
        self.graph_nodes = [graph.nodes[index] for index in sorted(graph.ancestors([top]))]
        self.source, self.top = next(iter(graph.inputs)), top
        steps = [_module(node, for_relevance) for node in self.graph_nodes]
        self._steps: list[Callable[..., torch.Tensor]] = list(steps)
        hidden = (Forward, LocalResponseNorm) if for_relevance else ()
        self.layers = nn.ModuleList(step for step in steps if not isinstance(step, hidden))
        self._last_reader = {value: i for i, node in enumerate(self.graph_nodes) for value in node.inputs}
        self.eval().requires_grad_(False)

    def layer_of(self, value: str) -> nn.Module:
        """The module that writes a value, for methods that hook layers. Raises InputError where none does."""
        for node, step in zip(self.graph_nodes, self._steps, strict=True):
            if node.outputs[0] == value and isinstance(step, nn.Module):
                return step
        raise InputError(f"'{value}': no layer below the top '{self.top}' writes it")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {self.source: x}
        for index, (node, step) in enumerate(zip(self.graph_nodes, self._steps, strict=True)):
            xs = [values[value] for value in node.inputs]
            ys = step.outputs(*xs) if isinstance(step, Forward) and len(node.outputs) > 1 else [step(*xs)]
            values.update(zip(node.outputs, ys, strict=False))
            for value in set(node.inputs):
                if self._last_reader[value] == index and value != self.top:
                    del values[value]
        top = values[self.top]
        if top.dim() == 2:
            return top
        scores = top.flatten(2)
        return scores.squeeze(2) if scores.shape[2] == 1 else scores.logsumexp(2)
