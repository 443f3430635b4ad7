"""The other methods of the paper, by captum, on a `GraphModule`: gradient, deconvnet, guided, Grad-CAM, CAM, LRP."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..engine.fold import fold
from ..errors import UnsupportedError
from ..extras import require
from ..graph import Graph
from .graph_module import GraphModule

Maps = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x float32 [N, C, H, W], classes int64 [N, K]) -> maps [N, K, h, w]."""


def captum_attr() -> Any:
    """captum.attr. Raises UnsupportedError where captum is missing."""
    return require("captum.attr", "eval", "every method but Excitation Backprop")


def _for_each_class(explain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Maps:
    """Maps of K classes from an explainer of one class for each image: every image goes in K times."""

    def maps(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        copies = x.repeat_interleave(classes.shape[1], 0).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captum's words on hooks it sets
            maps = explain(copies, classes.flatten()).detach()
        return maps.reshape(*classes.shape, *maps.shape[-2:])

    return maps


def gradient(module: GraphModule) -> Maps:
    """Largest |d score / d input| over the colors (Simonyan et al., 2014)."""
    saliency = captum_attr().Saliency(module)
    return _for_each_class(lambda x, target: saliency.attribute(x, target=target).amax(1))


def input_x_gradient(module: GraphModule) -> Maps:
    """Input times d score / d input, summed over the colors (Shrikumar et al., 2017)."""
    method = captum_attr().InputXGradient(module)
    return _for_each_class(lambda x, target: method.attribute(x, target=target).sum(1))


def integrated_gradients(module: GraphModule, steps: int = 32) -> Maps:
    """Integrated gradients from the zero input, summed over the colors (Sundararajan et al., 2017)."""
    method = captum_attr().IntegratedGradients(module)
    return _for_each_class(
        lambda x, target: method.attribute(x, target=target, n_steps=steps, internal_batch_size=8).sum(1)
    )


def _need_relu(module: GraphModule, method: str) -> None:
    """Raises UnsupportedError where there is no ReLU: the method would be the gradient under another name."""
    if not any(isinstance(layer, torch.nn.ReLU) for layer in module.modules()):
        raise UnsupportedError(f"{method}: changes the gradient at ReLUs, and the network has none")


def deconvolution(module: GraphModule) -> Maps:
    """Largest |signal| over the colors, ReLUs passing the positive signal (Zeiler and Fergus, 2014)."""
    _need_relu(module, "deconvnet")
    deconv = captum_attr().Deconvolution(module)
    return _for_each_class(lambda x, target: deconv.attribute(x, target=target).abs().amax(1))


def guided_backprop(module: GraphModule) -> Maps:
    """Largest |signal| over the colors, ReLUs passing what both they and deconvnet pass (Springenberg, 2015)."""
    _need_relu(module, "guided")
    guided = captum_attr().GuidedBackprop(module)
    return _for_each_class(lambda x, target: guided.attribute(x, target=target).abs().amax(1))


def grad_cam(module: GraphModule, value: str) -> Maps:
    """Grad-CAM at a value, negative parts cut off (Selvaraju et al., 2017)."""
    cam = captum_attr().LayerGradCam(module, module.layer_of(value))
    return _for_each_class(
        lambda x, target: cam.attribute(x, target=target, attr_dim_summation=True, relu_attributions=True)
    )


def class_activation_map(module: GraphModule, graph: Graph, value: str) -> Maps:
    """CAM (Zhou et al., 2016): the classifier's weights over the last plane, as Grad-CAM without its cut.

    Raises UnsupportedError where more than global average pooling and one linear layer lies above `value`.
    """
    above = graph.descendants([value]) & graph.ancestors([module.top])
    ops = [graph.nodes[index].op for index in sorted(above)]
    idle = {"identity", "flatten", "squeeze", "reshape"}
    rest = [op for op in ops if op not in idle]
    if len(rest) != 2 or rest[0] not in ("avg_pool", "mean", "reduce") or rest[1] not in ("linear", "conv"):
        raise UnsupportedError(
            f"cam: above '{value}' lie {', '.join(ops)}; CAM is for networks that end in global average pooling and "
            "one linear layer (grad-cam takes all)"
        )
    cam = captum_attr().LayerGradCam(module, module.layer_of(value))
    return _for_each_class(
        lambda x, target: cam.attribute(x, target=target, attr_dim_summation=True, relu_attributions=False)
    )


def lrp(graph: Graph, top: str, rule: str, device: str = "cpu") -> Maps:
    """Layer-wise relevance propagation (Bach et al., 2015), summed over colors; rule: "epsilon" or "alpha1beta0".

    Batch norm and scales are folded into the layers before them, LRN passes relevance on unchanged. Alpha-beta leaves
    the first layer, whose input is signed, to epsilon. Raises UnsupportedError for what captum has no rule for.
    """
    attr = captum_attr()
    module = GraphModule(fold(graph), top, for_relevance=True).to(device)

    def explain(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if rule == "alpha1beta0":
            from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule

            weighted = [m for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
            for layer in weighted[1:]:
                layer.rule = Alpha1_Beta0_Rule()
        relevance: torch.Tensor = attr.LRP(module).attribute(x, target=target)
        return relevance.sum(1)

    return _for_each_class(explain)
