"""What a method computes by and where: as its caller says, or chosen from the network where the caller says nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from torch import nn

from .engine.candidates import candidates, choose_contrast, choose_layer
from .engine.condition import frames_of_ours
from .engine.plan import Plan
from .errors import InputError
from .net import Net
from .rules import check_rule_set
from .vocabulary import operations

Layer = str | nn.Module
"""A blob, layer or module name, or a module of the network."""


_WEIGHTED = operations("conv", "linear")


class RulesNotice(UserWarning):
    """The rule set was not named, and the one for this network is not the one that was the default before."""


class Unset(Enum):
    """Stands for an argument that was not given, where None means something."""

    UNSET = "unset"


UNSET: Literal[Unset.UNSET] = Unset.UNSET


@dataclass(frozen=True)
class Places:
    """The layers of a method, by their names."""

    layers: tuple[str, ...]
    contrast_layer: str | None
    chosen: frozenset[str] = frozenset()
    """Which of "layer" and "contrast_layer" nobody named."""


def rules_for(net: Net, rules: str, layer_is_named: bool) -> str:
    """The rule set for "auto": "caffe" for a network that came from Caffe, otherwise "conserving".

    Warns once in a process where the call is one that meant "caffe" before "auto" was the default.
    """
    if rules != "auto":
        return check_rule_set(rules)
    if net.graph.source == "caffe":
        return "caffe"
    if layer_is_named and not _told:
        _told.append(True)
        warnings.warn(
            f"{net.graph.origin}: rules='auto' is 'conserving' for networks that do not come from Caffe; the default "
            "was 'caffe', whose maps differ: rules='caffe' gives those, rules='conserving' leaves this notice out",
            RulesNotice,
            stacklevel=frames_of_ours(),
        )
    return "conserving"


_told: list[bool] = []


def places_for(
    net: Net,
    plan: Plan,
    top: str,
    layer: Layer | Sequence[Layer] | None,
    contrast_layer: Layer | Unset | None,
) -> Places:
    """The layers of a method on `plan`.

    Args:
        net: the network of the plan.
        plan: of the rules to be used.
        top: the value that the sweep starts from.
        layer: one, a list, or None: chosen.
        contrast_layer: one, None for MWP, or "auto": chosen. Unset: as "auto" where the layer is chosen too, else None.

    Raises:
        InputError: a name or module that the network does not have, or nothing to choose from.
    """
    published = published_places(net)
    chosen = set()
    if contrast_layer is UNSET:
        contrast_layer = "auto" if layer is None else None
    contrast = None
    if contrast_layer == "auto":
        chosen.add("contrast_layer")
        contrast = published[1] if published is not None else choose_contrast(plan, top)
    elif contrast_layer is not None:
        contrast = layer_name(net, contrast_layer, "contrast_layer")
    if layer is None:
        chosen.add("layer")
        return Places((_chosen_layer(net, plan, top, contrast, published),), contrast, frozenset(chosen))
    several = layer if isinstance(layer, (list, tuple)) else [layer]
    if not several:
        raise InputError("layer=[]: wanted at least one layer")
    names = tuple(layer_name(net, one, "layer") for one in several)
    if len(set(names)) < len(names):
        raise InputError(f"layer={list(names)}: wanted each layer once")
    return Places(names, contrast, frozenset(chosen))


def published_places(net: Net) -> tuple[str, str] | None:
    """Layer and contrast layer of a network of the catalogue, which the paper or its demos use."""
    if net.graph.source != "caffe":
        return None
    from .models import recognize

    model = recognize([node.name for node in net.graph.nodes if node.op in _WEIGHTED])
    return None if model is None else (model.layer, model.contrast_layer)


def _chosen_layer(net: Net, plan: Plan, top: str, contrast: str | None, published: tuple[str, str] | None) -> str:
    if published is not None and contrast in (None, published[1]):
        return published[0]
    value = None if contrast is None else plan.graph.resolve(contrast)[0]
    return choose_layer(plan, candidates(net.graph, net.shapes(), top), top, value)


def layer_name(net: Net, layer: object, argument: str) -> str:
    """The name of a layer that is given by name or as the module itself.

    Raises InputError that names the argument for another kind of object, and for a module of another network.
    """
    if isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise InputError(f"{argument}={layer!r}: wanted a layer's name, or a module of the network")
    kind = type(layer).__name__
    module = net.module
    if module is None:
        raise InputError(f"{argument}: a {kind} names no layer of {net.graph.origin}, which is not read from a module")
    names = [name for name, part in module.named_modules(remove_duplicate=False) if part is layer and name]
    if not names:
        raise InputError(f"{argument}: this {kind} is no part of the {type(module).__name__}")
    return next((name for name in names if name in net.graph.names), names[0])
