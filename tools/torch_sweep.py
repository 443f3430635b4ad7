"""The benchmark's yardstick: our own algorithm out of torch's ready parts, cuDNN's convolutions and pointwise ops.

Forward once, W+ packed once, one normaliser for all classes, the contrast subtracted at its layer: what is left to
gain over this is what the project's own kernels do. Rule set "caffe", the layers of GoogLeNet and VGG16 only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ebp_cuda.errors import UnsupportedError
from ebp_cuda.eval.graph_module import LocalResponseNorm
from ebp_cuda.graph import Graph, Node
from ebp_cuda.targets import class_seed

Tensor = torch.Tensor
Share = tuple[Tensor, Tensor | None]
"""Relevance s * x: s [N*K, ...], image-major, and the factor [N, ...] that an image's columns share, or None."""
Values = dict[str, Tensor]


def by_column(s: Tensor, x: Tensor) -> Tensor:
    """s [N*K, ...] times x [N, ...]."""
    if s.shape[0] == x.shape[0]:
        return s * x
    return (s.unflatten(0, (x.shape[0], -1)) * x.unsqueeze(1)).flatten(0, 1)


def ratio(p: Tensor, z: Tensor) -> Tensor:
    return torch.where(z == 0, 0, p / z)


def multiplied(share: Share) -> Tensor:
    s, x = share
    return s if x is None else by_column(s, x)


def over(share: Share, z: Tensor) -> Tensor:
    """Relevance divided by the normaliser."""
    s, x = share
    return by_column(s, ratio(torch.ones_like(z) if x is None else x, z))


def repeated(x: Tensor, p: Tensor) -> Tensor:
    """x [N, ...] once for every column of p [N*K, ...]."""
    return x if x.shape[0] == p.shape[0] else x.repeat_interleave(p.shape[0] // x.shape[0], 0)


class TorchSweep:
    """c-MWP of one network at one layer on torch alone; the arguments name values of the graph."""

    def __init__(self, graph: Graph, top: str, layer: str, contrast: str, device: torch.device) -> None:
        self.top, self.layer, self.contrast = top, layer, contrast
        self.source = next(iter(graph.inputs))
        self.nodes = [graph.nodes[index] for index in sorted(graph.ancestors([top]))]
        self.above = {value: graph.descendants([value]) & graph.ancestors([top]) for value in (layer, contrast)}
        self.places = {id(node): index for index, node in enumerate(graph.nodes)}
        self.params = {id(n): {k: self._placed(p, device) for k, p in n.params.items()} for n in self.nodes}
        self.plus = {id(n): self.params[id(n)]["weight"].clamp(min=0) for n in self.nodes if n.params}
        self.minus = (-self.params[id(self.nodes[-1])]["weight"]).clamp(min=0)

    @staticmethod
    def _placed(param: Tensor, device: torch.device) -> Tensor:
        placed = param.to(device)
        return placed.contiguous(memory_format=torch.channels_last) if placed.dim() == 4 else placed

    @torch.inference_mode()
    def maps(self, x: Tensor, targets: Tensor) -> Tensor:
        """x [N, C, H, W] channels_last, targets [N, K] -> [N, K, h, w]."""
        values, codes = self.forward(x)
        seed = class_seed(values[self.top], targets)
        upper = [node for node in self.nodes if self.places[id(node)] in self.above[self.contrast]]
        halves = [self.sweep(values, codes, upper, {self.top: (seed, None)}, sign) for sign in (1, -1)]
        (first, x_contrast), (second, _) = (half[self.contrast] for half in halves)
        lower = [n for n in self.nodes if self.places[id(n)] in self.above[self.layer] - self.above[self.contrast]]
        found = self.sweep(values, codes, lower, {self.contrast: (first - second, x_contrast)}, 1)
        return multiplied(found[self.layer]).sum(1).unflatten(0, targets.shape)

    def forward(self, x: Tensor) -> tuple[Values, Values]:
        """All activations, and the winners of the max pools."""
        values: Values = {self.source: x}
        codes: Values = {}
        for node in self.nodes:
            xs, attrs, params = [values[v] for v in node.inputs], node.attrs, self.params[id(node)]
            if node.op == "conv":
                y = F.conv2d(xs[0], params["weight"], params.get("bias"), *self._window(node))
            elif node.op == "linear":
                y = F.linear(xs[0], params["weight"], params.get("bias"))
            elif node.op == "max_pool":
                window = attrs["kernel"], attrs["stride"], attrs["padding"], attrs["dilation"], attrs["ceil_mode"]
                y, codes[node.name] = torch.ops.aten.max_pool2d_with_indices.default(xs[0], *window)
            else:
                y = self._simple(node)(*xs)
            values[node.outputs[0]] = y
        return values, codes

    @staticmethod
    def _window(node: Node) -> tuple:
        if node.attrs["padding"] != node.attrs["padding_end"]:
            raise UnsupportedError(f"layer '{node.name}': uneven padding")
        return tuple(node.attrs[key] for key in ("stride", "padding", "dilation", "groups"))

    @staticmethod
    def _simple(node: Node) -> Callable[..., Tensor]:
        attrs = node.attrs
        if node.op == "relu":
            return torch.relu
        if node.op == "identity":
            return lambda x: x
        if node.op == "concat":
            return lambda *xs: torch.cat(xs, attrs["axis"])
        if node.op == "flatten":
            return lambda x: x.flatten(attrs["axis"])
        if node.op == "lrn":
            return LocalResponseNorm(node, passes=False)
        if node.op == "avg_pool":
            return lambda x: F.avg_pool2d(x, attrs["kernel"], attrs["stride"], attrs["padding"], attrs["ceil_mode"])
        raise UnsupportedError(f"layer '{node.name}' ({node.op}): not among the benchmark's")

    def sweep(self, values: Values, codes: Values, nodes: list[Node], seeds: dict[str, Share], sign: int) -> dict:
        """Relevance (by value) that is left when the seeds went down through `nodes`."""
        pending: dict[str, list[Share]] = {value: [share] for value, share in seeds.items()}
        for node in reversed(nodes):
            above = self._sum(pending.pop(node.outputs[0]))
            for value, share in zip(node.inputs, self._down(node, above, values, codes, sign), strict=True):
                pending.setdefault(value, []).append(share)
        return {value: self._sum(shares) for value, shares in pending.items()}

    @staticmethod
    def _sum(shares: list[Share]) -> Share:
        if len(shares) == 1:
            return shares[0]
        if all(x is shares[0][1] for _, x in shares):
            return sum((s for s, _ in shares[1:]), shares[0][0]), shares[0][1]
        return sum((multiplied(share) for share in shares[1:]), multiplied(shares[0])), None

    def _down(self, node: Node, above: Share, values: Values, codes: Values, sign: int) -> list[Share]:
        x, attrs = values[node.inputs[0]], node.attrs
        if node.op in ("conv", "linear"):
            plus = self.minus if sign < 0 and node is self.nodes[-1] else self.plus[id(node)]
            return [(self._through_weights(node, above, x, plus), x)]
        if node.op == "max_pool":
            carried = above[1] is values[node.outputs[0]]
            p = above[0] if carried else multiplied(above)
            window = attrs["kernel"], attrs["stride"], attrs["padding"], attrs["dilation"], attrs["ceil_mode"]
            s = torch.ops.aten.max_pool2d_with_indices_backward.default(
                p, repeated(x, p), *window, repeated(codes[node.name], p)
            )
            return [(s, x if carried else None)]
        if node.op == "avg_pool":
            window = attrs["kernel"], attrs["stride"], attrs["padding"], attrs["ceil_mode"], True, 1
            r = over(above, F.avg_pool2d(x, *window))
            return [(torch.ops.aten.avg_pool2d_backward.default(r, repeated(x, r), *window), x)]
        if node.op == "concat":
            sizes, axis = [values[v].shape[attrs["axis"]] for v in node.inputs], attrs["axis"]
            factors = (None,) * len(sizes) if above[1] is None else above[1].split(sizes, axis)
            return list(zip(above[0].split(sizes, axis), factors, strict=True))
        if node.op == "flatten":
            return [(multiplied(above).reshape(-1, *x.shape[1:]), None)]
        return [above]  # ReLU, LRN, dropout pass it on

    def _through_weights(self, node: Node, above: Share, x: Tensor, plus: Tensor) -> Tensor:
        if node.op == "linear":
            return over(above, F.linear(x, plus)) @ plus
        window = self._window(node)
        r = over(above, F.conv2d(x, plus, None, *window))
        shape = x.new_empty(1).expand(r.shape[0], *x.shape[1:])
        stride, padding, dilation, groups = window
        rest = stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        return torch.ops.aten.convolution_backward.default(r, shape, plus, None, *rest)[0]
