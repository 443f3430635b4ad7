"""TorchRay's excitation backprop, by its names: change the import and nothing else.

    from ebp_cuda.compat.torchray import contrastive_excitation_backprop, excitation_backprop

Signatures, defaults and results are those of torchray.attribution.excitation_backprop 1.0.0.2, up to rounding, wherever
that one is right (docs/backend.md lists where it is not). TorchRay itself is not needed, and the module that is asked
about stays as it is: no hooks, no patched functions, no negated weights, no requires_grad switched off.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError, UnsupportedError
from ..net import Net
from .modules import network, nodes_with, uncompiled, value_of
from .sweep import Propagation, propagate

__all__ = [
    "EltwiseSum",
    "ExcitationBackpropContext",
    "Probe",
    "contrastive_excitation_backprop",
    "eltwise_sum",
    "excitation_backprop",
    "get_backward_gradient",
    "gradient_to_contrastive_excitation_backprop_saliency",
    "gradient_to_excitation_backprop_saliency",
    "update_resnet",
]

Tensor = torch.Tensor
Layer = str | nn.Module
Resize = bool | Sequence[int]


class Probe:
    """What `debug=True` gives for one module, with the attributes of TorchRay's probe.

    module: the module. target: "output", or "input" for the whole model. data: one tensor whose `grad` is its
    relevance, None where none arrives; empty where the import has no such value.
    """

    module: Any
    target: str
    data: list[Tensor]
    contrast: list[Tensor]
    hook: None = None
    non_negative_contrast: bool = False

    def __init__(self, module: nn.Module, target: str = "input") -> None:
        """Raises UnsupportedError: nothing attaches to a module here. Probes come from debug=True."""
        if target not in ("input", "output"):
            raise InputError(f"Probe: target={target!r}; wanted 'input' or 'output'")
        raise UnsupportedError(
            f"Probe({type(module).__name__}, target='{target}'): no module is hooked here, so none can be probed; "
            "excitation_backprop(..., debug=True) returns the map and a Probe for every module by name"
        )

    @classmethod
    def _filled(cls, module: Any, target: str, data: list[Tensor]) -> Probe:
        probe = cls.__new__(cls)
        probe.module, probe.target, probe.data, probe.contrast = module, target, data, []
        return probe

    def remove(self) -> None:
        """Does nothing: a probe is attached to nothing."""


class ExcitationBackpropContext:
    """The default of `context_builder`, there so that calls which name it work. It cannot be entered."""

    def __init__(self, enable: bool = True, debug: bool = False) -> None:
        raise UnsupportedError(
            "ExcitationBackpropContext: there is no context to enter, because nothing is patched; call "
            "excitation_backprop or contrastive_excitation_backprop"
        )


def get_backward_gradient(pred_y: Tensor, y: Any) -> Tensor:
    """The seed: `y` itself if it is a tensor of `pred_y`'s shape, else 1 at class y of each image, at all positions.

    pred_y: [N, classes, ...]. y: an int, or a list, array or tensor of N of them. Raises InputError.
    """
    try:
        target = y if isinstance(y, Tensor) else torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        shown = f"{y!r}"[:100]
        raise InputError(f"target={shown}: a {type(y).__name__}; wanted one class, or one for each image") from None
    target = target.to(pred_y.device)
    if target.shape == pred_y.shape:
        return target
    if (
        target.is_floating_point()
        or target.is_complex()
        or target.dtype == torch.bool
        or target.numel() not in (1, pred_y.shape[0])
    ):
        raise InputError(f"target is {target.dtype} {list(target.shape)}; wanted one class, or one for each image")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= pred_y.shape[1]:
        raise InputError(f"target {low if low < 0 else high}: the model has classes 0 to {pred_y.shape[1] - 1}")
    index = target.long().reshape(-1, 1, *[1] * (pred_y.dim() - 2))
    return torch.zeros_like(pred_y).scatter_(1, index.expand(pred_y.shape[0], 1, *pred_y.shape[2:]), 1.0)


def gradient_to_excitation_backprop_saliency(x: Tensor) -> Tensor:
    """Relevance x.grad [N, C, ...] summed over its channels: [N, 1, ...]."""
    return _relevance(x).sum(1, keepdim=True)


def gradient_to_contrastive_excitation_backprop_saliency(x: Tensor) -> Tensor:
    """The same without its negative values."""
    return _relevance(x).sum(1, keepdim=True).clamp(min=0)


def excitation_backprop(
    model: nn.Module,
    input: Tensor,
    target: Any,
    saliency_layer: Layer = "",
    resize: Resize = False,
    resize_mode: str = "bilinear",
    smooth: float = 0,
    context_builder: Any = ExcitationBackpropContext,
    gradient_to_saliency: Callable[[Tensor], Tensor] = gradient_to_excitation_backprop_saliency,
    get_backward_gradient: Callable[[Tensor, Any], Tensor] = get_backward_gradient,
    debug: bool = False,
) -> Any:
    """MWP maps [N, 1, h, w], unclipped, at the output of `saliency_layer` ("": at the input).

    model: a torch module (or an ebp_cuda Net). input: float [N, C, H, W]. target: what get_backward_gradient takes;
    that function gives the seed, of the shape of the model's output. resize: True for the input's size, or (width,
    height). smooth: a Gaussian of this fraction of the larger side. gradient_to_saliency: from the layer's activation,
    its relevance in `grad`, to the map. With debug the result is (map, Probe by module name).

    Raises UnsupportedError for layers without a rule, InputError for unknown layers and bad targets.
    """
    if getattr(context_builder, "__name__", "") != "ExcitationBackpropContext":
        raise UnsupportedError(f"context_builder={context_builder!r}: wanted ExcitationBackpropContext")
    x, probes = _run(model, input, target, saliency_layer, get_backward_gradient, None, None, debug)
    saliency = _resized(gradient_to_saliency(x), input, resize, resize_mode)
    saliency = _smoothed(saliency, smooth * max(saliency.shape[2:])) if smooth > 0 else saliency
    return (saliency, probes) if debug else saliency


def contrastive_excitation_backprop(
    model: nn.Module,
    input: Tensor,
    target: Any,
    saliency_layer: Layer,
    contrast_layer: Layer,
    classifier_layer: Layer | None = None,
    resize: Resize = False,
    resize_mode: str = "bilinear",
    get_backward_gradient: Callable[[Tensor, Any], Tensor] = get_backward_gradient,
    debug: bool = False,
) -> Any:
    """c-MWP maps [N, 1, h, w] without their negative values, at the output of `saliency_layer`.

    contrast_layer: where what the negated classifier excites is subtracted. classifier_layer: whose weights are
    negated; by default the last convolution or linear layer among the model's parameters. The rest is as for
    `excitation_backprop`; with debug, probes above the contrast layer have no grad.
    """
    contrast = (contrast_layer, classifier_layer)
    x, probes = _run(model, input, target, saliency_layer, get_backward_gradient, *contrast, debug)
    saliency = gradient_to_contrastive_excitation_backprop_saliency(x)
    saliency = _resized(saliency, input, resize, resize_mode)
    return (saliency, probes) if debug else saliency


def _run(
    model: nn.Module,
    input: Tensor,
    target: Any,
    layer: Layer,
    gradient: Callable[[Tensor, Any], Tensor],
    contrast_layer: Layer | None,
    classifier_layer: Layer | None,
    debug: bool,
) -> tuple[Tensor, OrderedDict[str, Probe] | None]:
    """The layer's activation with its relevance in `grad`, and a probe per module where they are wanted."""
    net = network(model, [input])
    value = value_of(net, model, layer, "saliency_layer")
    contrast = value_of(net, model, contrast_layer, "contrast_layer") if contrast_layer is not None else None
    negated = _negated(net, model, classifier_layer) if contrast_layer is not None else None
    if len(net.graph.outputs) != 1:
        raise InputError(f"the model has {len(net.graph.outputs)} outputs; wanted one, as TorchRay does")
    top = net.graph.outputs[0]
    probed = _probed_values(net, model) if debug else {}
    below = net.graph.ancestors([contrast or top])
    reached = {name for index in below for name in (*net.graph.nodes[index].inputs, *net.graph.nodes[index].outputs)}
    wanted = list(dict.fromkeys([value, *(name for name in probed.values() if name in reached)]))

    def seed(output: Tensor) -> Tensor:
        start = gradient(output, target)
        if not isinstance(start, Tensor):
            raise InputError(
                f"get_backward_gradient gives a {type(start).__name__}; wanted a tensor {list(output.shape)}"
            )
        return start

    keep = {value, *probed.values()}
    found = propagate(net, [input], top, seed, wanted, contrast=contrast, negated=negated, keep=keep)
    activations = {name: _with_relevance(found, name) for name in keep}
    if not debug:
        return activations[value], None
    probes = OrderedDict()
    for name, part in _named_modules(model):
        data = [activations[probed[name]]] if name in probed else []
        probes[name] = Probe._filled(part, "output" if name else "input", data)
    return activations[value], probes


def _named_modules(model: Net | nn.Module) -> list[tuple[str, Any]]:
    model = uncompiled(model)
    return [("", model)] if isinstance(model, Net) else list(model.named_modules())


def _probed_values(net: Net, model: Net | nn.Module) -> dict[str, str]:
    names = [name for name, _ in _named_modules(model)]
    return {name: value_of(net, model, name, "debug") for name in names if not name or name in net.graph.names}


def _with_relevance(found: Propagation, value: str) -> Tensor:
    x = found.activations[value].detach()
    relevance = found.relevance.get(value)
    if x.is_floating_point():
        x.grad = None if relevance is None else relevance.reshape(x.shape).to(x.dtype).contiguous()
    return x


def _relevance(x: Tensor) -> Tensor:
    if x.grad is None:
        raise InputError("gradient_to_saliency: the tensor has no relevance in its grad")
    return x.grad


_CLASSIFIERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def _negated(net: Net, model: Net | nn.Module, layer: Layer | None) -> frozenset[int] | None:
    """The layers whose weights the contrast negates; None where the network itself has to say."""
    model = uncompiled(model)
    if isinstance(model, Net):
        if layer is None:
            return None
        return frozenset(net.graph.producer[name] for name in net.graph.resolve(str(layer)))
    parts = dict(model.named_modules())
    if layer is None:
        owners = [name.removesuffix(".weight") for name, _ in model.named_parameters() if name.endswith(".weight")]
        known = [parts[name] for name in owners if isinstance(parts[name], _CLASSIFIERS)]
        chosen = known[-1] if known else None
    else:
        chosen = layer if isinstance(layer, nn.Module) else parts.get(layer)
    weight = getattr(chosen, "weight", None)
    found = nodes_with(net, weight) if isinstance(weight, Tensor) else frozenset()
    if not found:
        raise InputError(f"classifier_layer={layer!r}: wanted a convolution or linear layer that the output depends on")
    return found


def _resized(saliency: Tensor, input: Tensor, resize: Resize, mode: str) -> Tensor:
    if resize is False:
        return saliency
    if resize is True:
        size = tuple(input.shape[2:])
    elif isinstance(resize, Sequence) and len(resize) == 2:
        size = (int(resize[1]), int(resize[0]))
    else:
        raise InputError(f"resize={resize!r}: wanted True, False or (width, height) in pixels")
    try:
        return F.interpolate(saliency, size, mode=mode, align_corners=False).contiguous()
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"resize_mode='{mode}' for a map {list(saliency.shape)}: {error}") from None


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps [N, C, h, w] under a Gaussian of `sigma` pixels, cut off at 4 sigma, with the borders repeated outwards."""
    reach = int(-(-4 * sigma // 1))
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    planes = maps.reshape(-1, 1, *maps.shape[2:])
    planes = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))
    return planes.reshape(maps.shape)


def eltwise_sum(*inputs: Tensor) -> Tensor:
    """The sum of several tensors of one shape."""
    return torch.stack(inputs).sum(0) if len(inputs) > 2 else inputs[0] + inputs[1] if inputs[1:] else inputs[0]


class EltwiseSum(nn.Module):
    """A module that adds its inputs. A plain `+` shares relevance just as well."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return eltwise_sum(*inputs)


def update_resnet(model: nn.Module, debug: bool = False) -> nn.Module:
    """The model itself, unchanged: sums of skip connections share relevance without having been replaced."""
    return model
