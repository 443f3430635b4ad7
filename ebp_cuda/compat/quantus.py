"""Excitation Backprop as an `explain_func` of Quantus, whose metrics judge explanations.

    from ebp_cuda.compat.quantus import explain_func

    quantus.Sparseness()(model=model, x_batch=x, y_batch=y, explain_func=explain_func,
                         explain_func_kwargs={"layer": "layer3", "contrast_layer": "avgpool"})

Quantus itself is not needed to import this. The model is read by torch.export once, however often a metric calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..errors import InputError
from ..images.maps import resize_maps
from ..rules import check_rule_set
from ..targets import choice_of, class_seed
from .modules import network, value_of
from .sweep import propagate
from .tops import Top, top_of

__all__ = ["explain_func"]

Array = npt.NDArray[Any]


def explain_func(
    model: nn.Module,
    inputs: Array | torch.Tensor,
    targets: Array | torch.Tensor | int,
    *,
    layer: str | nn.Module = "",
    contrast_layer: str | nn.Module | None = None,
    rules: str = "conserving",
    top: Top = None,
    device: str | torch.device | None = None,
) -> Array:
    """Attributions of a batch, as Quantus asks for them.

    Args:
        model: a torch module.
        inputs: [N, C, ...], an array or a tensor.
        targets: a class for each image, [N], or one for all.
        layer: where relevance is read: "" for the inputs themselves, else a module of the model or its name, whose map
            is resized to the inputs.
        contrast_layer: name or module, for the contrastive form.
        rules: "conserving" or "caffe" (docs/rules.md).
        top: of a model with several outputs the place of the one to explain, or the layer that holds its scores.
        device: where to compute; None: where the model's weights are.

    Returns:
        [N, C, ...] of the inputs, else [N, 1, h, w] in their size, in the inputs' dtype.

    Raises:
        InputError: targets that the model lacks, an unknown layer, or one without a plane [h, w].
        UnsupportedError: a layer without a rule.
    """
    weight = next(model.parameters(), None)
    where = device if device is not None else "cpu" if weight is None else weight.device
    given = torch.as_tensor(inputs)
    x = given.to(where, torch.float32 if weight is None else weight.dtype)
    net = network(model, [x])
    value = value_of(net, model, layer, "layer")
    at = None if contrast_layer is None else value_of(net, model, contrast_layer, "contrast_layer")
    choice = choice_of(torch.as_tensor(targets).reshape(-1) if np.ndim(targets) else int(targets), len(x))

    def seed(output: torch.Tensor) -> torch.Tensor:
        choice.check(output.shape[1])
        return class_seed(output, choice.of(output))

    result = propagate(net, [x], top_of(net, model, top), seed, [value], rules=check_rule_set(rules), contrast=at)
    relevance = result.relevance[value]
    if layer != "":
        if relevance.dim() != 4:
            raise InputError(f"layer: relevance of shape {list(relevance.shape)} has no plane; wanted [N, C, h, w]")
        relevance = resize_maps(relevance.sum(1, keepdim=True), (x.shape[2], x.shape[3]))
    return relevance.to(given.dtype if given.is_floating_point() else x.dtype).cpu().numpy()
