"""One forward pass and one sweep from a seed of the caller's: what the adapters share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from ..engine.condition import mass_left
from ..engine.run import Walk
from ..engine.status import Status, status_of
from ..errors import InputError, NumericError, ShapeError
from ..net import Net

Seed = Callable[[torch.Tensor], torch.Tensor]
"""From the top's activation [N, classes, ...] to the relevance to start from, of the same shape."""


@dataclass(frozen=True)
class Propagation:
    """What one call computed."""

    output: torch.Tensor
    """The top's activation."""
    relevance: dict[str, torch.Tensor]
    """By value name, [N, ...], contiguous; only values that some relevance reaches."""
    activations: dict[str, torch.Tensor]
    """By value name, [N, ...], of the values that were to be kept."""


def propagate(
    net: Net,
    inputs: Sequence[torch.Tensor],
    top: str,
    seed: Seed,
    values: Sequence[str],
    *,
    rules: str = "caffe",
    contrast: str | None = None,
    negated: Collection[int] | None = None,
    keep: Collection[str] = (),
) -> Propagation:
    """Relevance of `values`; the inputs, in the network's order, decide device and dtype (float32 or float64).

    contrast, negated: as for `engine.run.Walk`. Raises InputError where a value lies beside the way, and where no
    negated layer lies between top and contrast; on a GPU what is wrong with numbers is raised by a later call, or by
    `net.check()`.
    """
    names = list(net.graph.inputs)
    if len(inputs) != len(names):
        raise InputError(f"{net.graph.origin} has {len(names)} inputs ({', '.join(names)}), {len(inputs)} were given")
    net.log.raise_arrived()
    dtype = torch.float64 if inputs[0].dtype == torch.float64 else torch.float32
    plan = net.plan(rules, inputs[0].device, dtype)
    walk = Walk(plan, top, tuple(values), contrast, None if not negated else frozenset(negated))
    walk.check()
    detached = {name: tensor.detach() for name, tensor in zip(names, inputs, strict=True)}
    placed = {name: plan.place(tensor) for name, tensor in net.check_inputs(detached).items()}
    trace = walk.forward(placed, keep)
    output = trace.values[top]
    swept = walk.sweep(trace, _checked(seed(output), output))
    relevance = {name: part.p().contiguous() for name, part in swept.relevance.items()}
    status = status_of(tuple(placed.values()), None, [mass_left(p, swept.start) for p in relevance.values()])
    title = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in placed.items())
    net.log.enter(status, title, None, lambda read, _: _judge(net, read))
    return Propagation(output, relevance, {name: trace.values[name] for name in keep})


def _judge(net: Net, status: Status) -> None:
    status.check_inputs(net.graph)
    if not status.finite:
        raise NumericError(f"{net.graph.origin}: relevance is not finite")


def _checked(seed: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    if seed.shape != output.shape:
        raise ShapeError(f"the seed has shape {list(seed.shape)}, wanted that of the output, {list(output.shape)}")
    return seed.detach().to(output.device, output.dtype)
