"""Excitation Backprop as attribution classes of Captum.

    from ebp_cuda.compat.captum import ExcitationBackprop, LayerExcitationBackprop

    attributions = LayerExcitationBackprop(model, model.layer3, contrast_layer="avgpool").attribute(x, target=281)

What takes a Captum `Attribution` takes these: visualization, infidelity, sensitivity_max, LayerAttribution.interpolate.
The model is read by torch.export in evaluation mode; no hooks, no clamped or moved weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ..errors import InputError, UnsupportedError
from ..net import Net
from ..rules import check_rule_set
from .modules import network, uncompiled, value_of
from .sweep import Seed, propagate
from .tops import Top, top_of

try:
    from captum._utils.common import _select_targets
    from captum.attr import Attribution, LayerAttribution
except ImportError as error:
    raise UnsupportedError("ebp_cuda.compat.captum needs Captum: pip install ebp_cuda[captum]") from error

__all__ = ["ExcitationBackprop", "LayerExcitationBackprop"]

Tensor = torch.Tensor
Tensors = Tensor | tuple[Tensor, ...]


Method = TypeVar("Method", bound=Callable[..., Any])


def _unwrappable(method: Method) -> Method:
    """With `__wrapped__`, which Captum's wrappers (NoiseTunnel, TCAV) call and its own methods have by a decorator."""

    @functools.wraps(method)
    def attribute(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return cast(Method, attribute)


class _Excitation:
    """What both classes know: the model, the rules, and where the contrast is taken."""

    forward_func: Any
    contrast_layer: str | nn.Module | None
    rules: str
    top: Top

    def _set_up(self, contrast_layer: str | nn.Module | None, rules: str, top: Top) -> None:
        if not isinstance(self.forward_func, nn.Module):
            raise InputError(f"model is a {type(self.forward_func).__name__}; wanted a torch.nn.Module")
        self.contrast_layer, self.rules, self.top = contrast_layer, check_rule_set(rules), top

    def _propagate(
        self, net: Net, given: Sequence[Tensor], target: Any, seed: Tensor | None, wanted: Sequence[str]
    ) -> dict[str, Tensor]:
        contrast = self.contrast_layer
        at = None if contrast is None else value_of(net, self.forward_func, contrast, "contrast_layer")
        top = top_of(net, self.forward_func, self.top)
        return propagate(net, given, top, _seed_of(target, seed), wanted, rules=self.rules, contrast=at).relevance

    @property
    def multiplies_by_inputs(self) -> bool:
        """Relevance is an activation times what it was weighted by."""
        return True


class ExcitationBackprop(_Excitation, Attribution):
    """Relevance of every input element: [N, C, H, W] of an input [N, C, H, W].

    Args:
        model: a torch module.
        contrast_layer: name or module, for the contrastive form.
        rules: "caffe" or "conserving" (docs/rules.md); with inputs below zero, "conserving" is the better conditioned
            one.
        top: of a model with several outputs the place of the one to explain, or the layer that holds its scores.
    """

    def __init__(
        self,
        model: nn.Module,
        contrast_layer: str | nn.Module | None = None,
        rules: str = "caffe",
        top: Top = None,
    ) -> None:
        Attribution.__init__(self, model)
        self._set_up(contrast_layer, rules, top)

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        seed: Tensor | None = None,
    ) -> Tensors:
        """Relevance of the inputs.

        Args:
            inputs: a tensor [N, ...], or a tuple of them.
            target: as in Captum: an int, a list or tensor of N ints, a tuple (or N of them) into an output of more
                dims, None for an output of one number an image.
            additional_forward_args: further tensors that the model takes.
            seed: in place of a target, the relevance of the output itself: of its shape, or of one image's for all.

        Returns:
            A tensor for a tensor, a tuple for a tuple, of the shapes and dtypes of the inputs.

        Raises:
            InputError: a target, output or layer that there is not.
            UnsupportedError: a layer without rule, arguments that are no tensors.
        """
        given = _arguments(inputs, additional_forward_args)
        net = network(self.forward_func, given)
        count = 1 if isinstance(inputs, Tensor) else len(inputs)
        names = list(net.graph.inputs)[:count]
        found = self._propagate(net, given, target, seed, names)
        parts = [found[name].to(x.dtype) for name, x in zip(names, given, strict=False)]
        return parts[0] if isinstance(inputs, Tensor) else tuple(parts)


class LayerExcitationBackprop(_Excitation, LayerAttribution):
    """Relevance of every unit of a layer: [N, C, h, w] where that is what the layer gives.

    Args:
        model: a torch module.
        layer: a module of the model, or its name.
        contrast_layer, rules, top: as for `ExcitationBackprop`.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module,
        contrast_layer: str | nn.Module | None = None,
        rules: str = "caffe",
        top: Top = None,
    ) -> None:
        LayerAttribution.__init__(self, model, layer)
        self._set_up(contrast_layer, rules, top)

    @_unwrappable
    def attribute(
        self,
        inputs: Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        seed: Tensor | None = None,
    ) -> Tensor:
        """Relevance of the layer's output, or of its input; the rest is as for `ExcitationBackprop.attribute`."""
        given = _arguments(inputs, additional_forward_args)
        net = network(self.forward_func, given)
        value = value_of(net, self.forward_func, self.layer, "layer")
        if attribute_to_layer_input:
            value = _input_of(net, self.forward_func, self.layer, value)
        found = self._propagate(net, given, target, seed, [value])
        return found[value].to(given[0].dtype)


def _arguments(inputs: Any, additional: Any) -> list[Any]:
    """What the model is called with, in order."""
    parts = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    more = list(additional) if isinstance(additional, (tuple, list)) else [additional]
    while more and more[-1] is None:  # what the model does by default; one further in front is refused with the rest
        more.pop()
    return [*parts, *more]


def _input_of(net: Net, model: nn.Module, layer: str | nn.Module, value: str) -> str:
    """The value that a layer of a single operation reads."""
    part = uncompiled(model).get_submodule(layer) if isinstance(layer, str) else layer  # type: ignore[union-attr]
    index = net.graph.producer.get(value)
    if index is None or list(part.children()):
        raise UnsupportedError(
            f"attribute_to_layer_input: {type(part).__name__} is made of several layers; name the one before it instead"
        )
    return net.graph.nodes[index].inputs[0]


def _seed_of(target: Any, given: Tensor | None) -> Seed:
    """1 at what Captum selects as the target of each image, or what was given in its place."""
    if given is not None and target is not None:
        raise InputError("got target= and seed=; wanted one of them")

    def seed(output: Tensor) -> Tensor:
        if given is not None:
            return given.expand_as(output) if given.shape == output.shape[1:] else given
        if target is None and output[0].numel() != 1:
            raise InputError(f"target=None: the model has {output[0].numel()} outputs an image; wanted one to be named")
        with torch.inference_mode(False), torch.enable_grad():
            leaf = output.detach().clone().requires_grad_()
            try:
                chosen = _select_targets(leaf, target)
            except (AssertionError, IndexError, TypeError, RuntimeError, ValueError) as error:
                raise InputError(f"target={target!r} for an output {list(output.shape)}: {error}") from None
            return torch.autograd.grad(chosen.sum(), leaf)[0]

    return seed
