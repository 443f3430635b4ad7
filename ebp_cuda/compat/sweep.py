"""One forward and one sweep from a seed of the caller's: what the adapters share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from .. import engine
from ..errors import InputError, ShapeError
from ..net import Net
from ..rules.relevance import Relevance

Seed = Callable[[torch.Tensor], torch.Tensor]
"""From the top's activation [N, classes, ...] to the relevance to start from, of the same shape."""


@dataclass(frozen=True)
class Carried:
    """What one call found."""

    output: torch.Tensor
    """The top's activation."""
    relevance: dict[str, torch.Tensor]
    """By value name, [N, ...], contiguous; only values that some relevance reaches."""
    activations: dict[str, torch.Tensor]
    """By value name, [N, ...], of the values that were to be kept."""


def carry(
    net: Net,
    inputs: Sequence[torch.Tensor],
    top: str,
    seed: Seed,
    wanted: Sequence[str],
    *,
    rules: str = "caffe",
    contrast: str | None = None,
    negated: Collection[int] | None = None,
    keep: Collection[str] = (),
) -> Carried:
    """Relevance of the `wanted` values; inputs, in the network's order, decide device and dtype (float32 or float64).

    contrast, negated: as for `engine.contrastive_sweep`. Raises InputError where a wanted value lies beside the way,
    and where no negated layer lies between top and contrast.
    """
    names = list(net.graph.inputs)
    if len(inputs) != len(names):
        raise InputError(f"{net.graph.origin} has {len(names)} inputs ({', '.join(names)}), {len(inputs)} were given")
    dtype = torch.float64 if inputs[0].dtype == torch.float64 else torch.float32
    plan = net.plan(rules, inputs[0].device, dtype)
    route = plan.route([top], wanted)
    if contrast is not None:
        _check_contrast(net, plan.route([top], [contrast]).nodes, negated or plan.classifiers(top), contrast)
    given = {name: tensor.detach() for name, tensor in zip(names, inputs, strict=True)}
    trace = engine.forward(plan, net.check_inputs(given), {*route.keep, *keep, top}, route.nodes)
    output = trace.values[top]
    start = Relevance(_checked(seed(output), output))
    if contrast is None:
        found = engine.sweep(plan, trace, route, {top: start}, wanted)
    else:
        found = engine.contrastive_sweep(plan, trace, top, start, contrast, wanted, negated)
    activations = {name: trace.values[name] for name in keep}
    return Carried(output, {name: part.p().contiguous() for name, part in found.items()}, activations)


def _checked(seed: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    if seed.shape != output.shape:
        raise ShapeError(f"the seed has shape {list(seed.shape)}, wanted that of the output, {list(output.shape)}")
    return seed.detach().to(output.device, output.dtype)


def _check_contrast(net: Net, between: Collection[int], negated: Collection[int], contrast: str) -> None:
    if not set(negated).intersection(between):
        wanted = "a contrast layer below the classifier, whose weights are negated"
        raise InputError(f"{net.graph.origin}: no classifier lies above '{contrast}'; wanted {wanted}")
