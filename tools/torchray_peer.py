"""The peer of the benchmark: TorchRay's contrastive excitation backprop on the very network and weights of ours.

TorchRay (PyPI torchray, CC BY-NC 4.0: measured here, never a dependency) is installed without its dependencies; of
torchvision it only needs three class names for an isinstance check, which stand-ins provide.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from types import ModuleType

import torch
from torch import nn

from ebp_cuda.eval.graph_module import GraphModule
from ebp_cuda.graph import Graph

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


def peer_module(graph: Graph, top: str, probed: Collection[str] = ()) -> GraphModule:
    """The graph up to the value `top` as a torch module with weights of its own, its ReLUs in place as such networks
    usually have them; not on the values in `probed`, which TorchRay reads."""
    module = GraphModule(graph, top)
    for node, layer in zip(module.graph_nodes, module.layers, strict=True):
        if isinstance(layer, nn.ReLU):
            layer.inplace = node.inputs[0] not in probed
    return module


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
    places = [module.layer_of(name) for name in (layer, contrast, module.top)]
    return contrastive_excitation_backprop(module, copies, torch.tensor(classes), *places).squeeze(1)
