"""The methods that the evaluations compare, by name, as functions from images and classes to maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ..api import ExcitationBackprop
from ..errors import InputError, UnsupportedError, nearest_names
from ..net import Net
from . import baselines
from .baselines import Maps
from .graph_module import GraphModule

METHODS = (
    "c-mwp", "mwp", "gradient", "deconv", "guided", "grad-cam", "cam", "lrp-epsilon", "lrp-alphabeta", "center",
)  # fmt: skip
ALIASES = {"lrp": "lrp-epsilon"}
PIXEL_METHODS = frozenset({"gradient", "deconv", "guided", "lrp-epsilon", "lrp-alphabeta"})
"""Maps of the size of the input, which the pointing game smooths before it looks for their maximum."""

_BELOW_A_PLANE = frozenset({"conv", "relu", "concat", "sum", "batch_norm", "affine", "mul", "clip", "silu"})


@dataclass(frozen=True)
class Layers:
    """Where the methods look; names of layers, blobs or modules."""

    layer: str
    """Where MWP and c-MWP are read."""
    contrast: str | None = None
    """Where c-MWP subtracts."""
    top: str | None = None
    """The class scores; by default the network's output, above its softmax."""
    cam: str | None = None
    """Where Grad-CAM and CAM are read; by default the last plane below the contrast layer or the top."""


@dataclass(frozen=True)
class Method:
    """One method of a network."""

    name: str
    maps: Maps
    smooths: bool = False


def method_names(text: str, known: Sequence[str] = METHODS) -> list[str]:
    """The methods of a comma-separated list; "all" is every known one. Raises InputError for an unknown one."""
    if text == "all":
        return list(known)
    asked = [name.strip() for name in text.split(",")]
    names = [name if name in known else ALIASES.get(name, name) for name in asked]
    for name in names:
        if name not in known:
            raise InputError(f"--method '{name}'{nearest_names(name, known)} (known: {', '.join(known)}, all)")
    return list(dict.fromkeys(names))


def build_methods(
    net: Net,
    names: Iterable[str],
    layers: Layers,
    *,
    rules: str = "caffe",
    device: str = "cpu",
    max_memory: str | None = None,
) -> tuple[list[Method], dict[str, str]]:
    """(the methods, reasons for those that this network does not allow).

    max_memory: of `ExcitationBackprop`. Raises InputError for unknown layers.
    """
    layers = replace(layers, cam=layers.cam or last_plane(net, layers))
    built, refused = [], {}
    factories = _factories(net, layers, rules, device, max_memory)
    for name in names:
        try:
            built.append(Method(name, factories[name](), name in PIXEL_METHODS))
        except UnsupportedError as error:
            refused[name] = str(error)
    return built, refused


def last_plane(net: Net, layers: Layers) -> str:
    """The last value below the contrast layer (or the top) that is a plane: what CAM weighs.

    Raises UnsupportedError where there is none.
    """
    graph = net.graph
    above = graph.resolve(layers.contrast or layers.top or net.default_top())[-1]
    shapes = net.shapes()
    for index in sorted(graph.ancestors([above]), reverse=True):
        node, value = graph.nodes[index], graph.nodes[index].outputs[0]
        shape = shapes.get(value, ())
        if value != above and node.op in _BELOW_A_PLANE and len(shape) == 4 and min(shape[2:]) > 1:
            return value
    raise UnsupportedError(f"{graph.origin}: no plane below '{above}' for Grad-CAM")


def _factories(
    net: Net, layers: Layers, rules: str, device: str, max_memory: str | None
) -> dict[str, Callable[[], Maps]]:
    graph = net.graph
    top = graph.resolve(layers.top)[-1] if layers.top else net.default_top()
    shared: list[GraphModule] = []

    def module() -> GraphModule:
        if not shared:
            shared.append(GraphModule(graph, top).to(device))
        return shared[0]

    def excitation(contrast: str | None) -> Maps:
        method = ExcitationBackprop(
            net, layers.layer, contrast, rules=rules, device=device, top=layers.top, max_memory=max_memory
        )

        def maps(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            attributed = method.attribute(x, classes)
            method.check()  # on a GPU: before the next images are asked for
            return attributed

        return maps

    def contrastive() -> Maps:
        if layers.contrast is None:
            raise UnsupportedError("c-mwp: needs --contrast-layer")
        return excitation(layers.contrast)

    cam = graph.resolve(layers.cam)[-1] if layers.cam else ""
    return {
        "c-mwp": contrastive,
        "mwp": lambda: excitation(None),
        "gradient": lambda: baselines.gradient(module()),
        "deconv": lambda: baselines.deconvolution(module()),
        "guided": lambda: baselines.guided_backprop(module()),
        "grad-cam": lambda: baselines.grad_cam(module(), cam),
        "cam": lambda: baselines.class_activation_map(module(), graph, cam),
        "lrp-epsilon": lambda: baselines.lrp(graph, top, "epsilon", device),
        "lrp-alphabeta": lambda: baselines.lrp(graph, top, "alpha1beta0", device),
        "center": lambda: centre,
    }


def centre(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Points at the middle of the image whatever it shows, [N, K, H, W]."""
    maps = x.new_zeros(*classes.shape, *x.shape[2:])
    maps[..., x.shape[2] // 2, x.shape[3] // 2] = 1
    return maps
