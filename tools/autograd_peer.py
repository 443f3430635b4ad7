"""The usual way to excitation backprop, as a peer of the benchmark: autograd with the layers' gradients replaced.

What the published PyTorch implementations do: one copy of the image for every class, the whole forward pass for each,
positive weights and normalisers made again at every call, and a contrast by a second backward pass through negated
classifier weights. Unlike torch_sweep.py it shares nothing between classes or calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from ebp_cuda.errors import UnsupportedError
from ebp_cuda.eval.graph_module import LocalResponseNorm
from ebp_cuda.graph import Graph, Node

Tensor = torch.Tensor
EPSILON = 1e-20


class _Share(torch.autograd.Function):
    """A layer run(x, weight) + bias whose gradient is x * W+^T (p / (W+ x)); `sign` turns the weights over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, run: Any, sign: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.run, ctx.sign = run, sign
        return run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, weight = ctx.saved_tensors
        plus = None if weight is None else (weight * ctx.sign[0]).clamp(min=0)
        with torch.enable_grad():
            below = x.detach().requires_grad_()
            z = ctx.run(below, plus, None)
            (t,) = torch.autograd.grad(z, below, grads[0] / (z.detach() + EPSILON))
        return x * t, None, None, None, None


class _Pass(torch.autograd.Function):
    """A normalization whose gradient is p itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class AutogradPeer:
    """c-MWP of one network at one layer; the arguments name values of the graph."""

    def __init__(self, graph: Graph, top: str, layer: str, contrast: str, device: torch.device) -> None:
        self.top, self.layer, self.contrast = top, layer, contrast
        self.source = next(iter(graph.inputs))
        self.nodes = [graph.nodes[index] for index in sorted(graph.ancestors([top]))]
        self.params = {id(n): {k: self._placed(p, device) for k, p in n.params.items()} for n in self.nodes}

    @staticmethod
    def _placed(param: Tensor, device: torch.device) -> Tensor:
        placed = param.to(device)
        return placed.contiguous(memory_format=torch.channels_last) if placed.dim() == 4 else placed

    def maps(self, x: Tensor, targets: Tensor) -> Tensor:
        """x [N, C, H, W], a class for each [N] -> [N, h, w]."""
        sign = [1]
        values = {self.source: x.detach().requires_grad_()}
        for node in self.nodes:
            xs = [values[value] for value in node.inputs]
            values[node.outputs[0]] = self._layer(node, xs, sign if node is self.nodes[-1] else [1])
        top, halves = values[self.top], []
        seed = torch.zeros_like(top)
        seed[torch.arange(len(x), device=x.device), targets] = self._share_of(top, targets)
        for sign[0] in (1, -1):
            halves += torch.autograd.grad(top, values[self.contrast], seed, retain_graph=True)
        (p,) = torch.autograd.grad(values[self.contrast], values[self.layer], halves[0] - halves[1])
        return p.sum(1)

    @staticmethod
    def _share_of(top: Tensor, targets: Tensor) -> Tensor:
        """1, or a softmax over positions where the top is spatial."""
        chosen = top[torch.arange(len(top), device=top.device), targets].detach()
        return torch.ones_like(chosen) if top.dim() == 2 else chosen.flatten(1).softmax(1).reshape(chosen.shape)

    def _layer(self, node: Node, xs: list[Tensor], sign: list[int]) -> Tensor:
        attrs, params = node.attrs, self.params[id(node)]
        if node.op in ("conv", "linear"):
            window = [attrs[key] for key in ("stride", "padding", "dilation", "groups")] if node.op == "conv" else []
            function = F.conv2d if node.op == "conv" else F.linear
            run = lambda x, weight, bias: function(x, weight, bias, *window)  # noqa: E731 - one line for either
            return _Share.apply(xs[0], params["weight"], params.get("bias"), run, sign)
        if node.op == "avg_pool":
            pool = partial(F.avg_pool2d, kernel_size=attrs["kernel"], stride=attrs["stride"])
            pool = partial(pool, padding=attrs["padding"], ceil_mode=attrs["ceil_mode"])
            return _Share.apply(xs[0], None, None, lambda x, weight, bias: pool(x), [1])
        if node.op == "max_pool":
            return F.max_pool2d(xs[0], attrs["kernel"], attrs["stride"], attrs["padding"], ceil_mode=attrs["ceil_mode"])
        if node.op == "lrn":
            return _Pass.apply(xs[0], LocalResponseNorm(node, passes=False))
        if node.op == "concat":
            return torch.cat(xs, attrs["axis"])
        if node.op == "flatten":
            return xs[0].flatten(attrs["axis"])
        if node.op in ("relu", "identity"):
            return xs[0].relu() if node.op == "relu" else xs[0]
        raise UnsupportedError(f"layer '{node.name}' ({node.op}): not among the benchmark's")
