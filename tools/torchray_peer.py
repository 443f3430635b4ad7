"""The peer of the benchmark: TorchRay's contrastive excitation backprop on the very network and weights of ours.

TorchRay (PyPI torchray, CC BY-NC 4.0: measured here, never a dependency) is installed without its dependencies; of
torchvision it only needs three class names for an isinstance check, which stand-ins provide.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from ebp_cuda.errors import UnsupportedError
from ebp_cuda.graph import Graph, Node

INSTALL = "python -m pip install --no-deps torchray==1.0.0.2"


def _stand_in_for_torchvision() -> None:
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
    root, models, resnet = (ModuleType(name) for name in names)
    for name in ("ResNet", "Bottleneck", "BasicBlock"):
        setattr(resnet, name, type(name, (nn.Module,), {}))
    root.models, models.resnet = models, resnet  # type: ignore[attr-defined]
    sys.modules.update(zip(names, (root, models, resnet), strict=True))


def _torchvision_loads() -> bool:
    try:
        import torchvision.models.resnet  # noqa: F401
    except (ImportError, RuntimeError):  # the latter where it was built for another torch
        return False
    return True


def torchray_available() -> bool:
    """Whether TorchRay can be imported; puts stand-ins in place where torchvision cannot be."""
    if not _torchvision_loads():
        _stand_in_for_torchvision()
    try:
        import torchray.attribution.excitation_backprop  # noqa: F401
    except ImportError:
        return False
    return True


class AcrossChannelNorm(nn.Module):
    """Local response normalisation through the built-in average pooling: TorchRay replaces the functional one while
    it runs and then raises TypeError on torch's own LocalResponseNorm."""

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = F.pad((x * x).unsqueeze(1), (0, 0, 0, 0, self.size // 2, (self.size - 1) // 2))
        mean = torch._C._nn.avg_pool3d(squares, (self.size, 1, 1), 1).squeeze(1)
        return x / (mean * self.alpha + self.k).pow(self.beta)


class Concat(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return torch.cat(xs, self.axis)


def _module(node: Node, probed: Collection[str]) -> nn.Module:
    attrs = node.attrs
    if "padding" in attrs and attrs["padding"] != attrs["padding_end"]:
        raise UnsupportedError(f"layer '{node.name}': uneven padding {attrs['padding']}, {attrs['padding_end']}")
    if node.op == "conv":
        weight = node.params["weight"]
        window = {key: attrs[key] for key in ("stride", "padding", "dilation", "groups")}
        kernel = (weight.shape[2], weight.shape[3])
        conv = nn.Conv2d(weight.shape[1] * attrs["groups"], weight.shape[0], kernel, **window)
        conv.load_state_dict({name: tensor.clone() for name, tensor in node.params.items()})
        return conv
    if node.op == "relu":
        return nn.ReLU(inplace=node.inputs[0] not in probed)
    if node.op == "max_pool":
        return nn.MaxPool2d(attrs["kernel"], attrs["stride"], attrs["padding"], ceil_mode=attrs["ceil_mode"])
    if node.op == "avg_pool":
        return nn.AvgPool2d(attrs["kernel"], attrs["stride"], attrs["padding"], ceil_mode=attrs["ceil_mode"])
    if node.op == "lrn":
        return AcrossChannelNorm(attrs["size"], attrs["alpha"], attrs["beta"], attrs["k"])
    if node.op == "concat":
        return Concat(attrs["axis"])
    if node.op == "linear":
        linear = nn.Linear(*reversed(node.params["weight"].shape))
        linear.load_state_dict({name: tensor.clone() for name, tensor in node.params.items()})
        return linear
    if node.op == "flatten":
        return nn.Flatten(attrs["axis"])
    if node.op == "identity":
        return nn.Identity()
    raise UnsupportedError(f"layer '{node.name}' ({node.op}): not among the operations of the benchmark's networks")


class GraphModule(nn.Module):
    """The graph up to the value `top` as a torch module with ordinary layers and weights of its own.

    probed: values that TorchRay reads, which no layer may write over.
    """

    def __init__(self, graph: Graph, top: str, probed: Collection[str] = ()) -> None:
        super().__init__()
        self.nodes = [graph.nodes[index] for index in sorted(graph.ancestors([top]))]
        self.layers = nn.ModuleList([_module(node, probed) for node in self.nodes])
        self.source, self.top = next(iter(graph.inputs)), top
        self.last_reader = {value: i for i, node in enumerate(self.nodes) for value in node.inputs}
        self.eval().requires_grad_(False)

    def layer(self, value: str) -> nn.Module:
        """The module that writes `value`."""
        return next(layer for node, layer in zip(self.nodes, self.layers, strict=True) if value in node.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {self.source: x}
        for i, (node, layer) in enumerate(zip(self.nodes, self.layers, strict=True)):
            y = layer(*(values[value] for value in node.inputs))
            for value in node.inputs:
                if self.last_reader[value] == i:
                    values.pop(value, None)
            values[node.outputs[0]] = y
        return values[self.top]


def contrastive_map(
    module: GraphModule, x: torch.Tensor, classes: Sequence[int], layer: str, contrast: str
) -> torch.Tensor:
    """TorchRay's c-MWP, [N, h, w], clipped at 0: of N images x and a class each, or of N classes of a single image,
    from as many copies of it in one batch (its best way).

    layer, contrast: names of values, above every LRN. TorchRay's maps below one are wrong.
    """
    from torchray.attribution.excitation_backprop import contrastive_excitation_backprop

    copies = x.repeat(len(classes) // len(x), 1, 1, 1)
    if x.is_contiguous(memory_format=torch.channels_last):
        copies = copies.contiguous(memory_format=torch.channels_last)
    places = [module.layer(name) for name in (layer, contrast, module.top)]
    return contrastive_excitation_backprop(module, copies, torch.tensor(classes), *places).squeeze(1)
