"""Where the time of a map goes: medians of interleaved runs, and the share of every layer."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..api import ExcitationBackprop
from ..engine.passes import Layer, Phase
from ..graph import Graph, Node
from ..linear import Choice, noting
from ..net import Net, load


def with_random_weights(net: Net, seed: int = 0) -> Net:
    """A network of the same layers with He-scaled normal weights and small uniform biases."""
    source = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: torch.Size) -> torch.Tensor:
        if name == "bias":
            return torch.rand(shape, generator=source) * 0.1 - 0.05
        return torch.randn(shape, generator=source) * (2.0 / shape[1:].numel()) ** 0.5

    def drawn(node: Node) -> Node:
        return dataclasses.replace(node, params={name: draw(name, old.shape) for name, old in node.params.items()})

    graph = net.graph
    return Net(Graph([drawn(node) for node in graph.nodes], graph.inputs, graph.outputs, graph.names, graph.meta))


def known_network(name: str, seed: int = 0) -> Net:
    """A network of the catalogue (`ebp_cuda.models.names()`) with random weights. Raises InputError."""
    from .. import models

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.prototxt"
        path.write_text(models.prototxt(name), encoding="utf-8")
        return with_random_weights(load(path), seed)


def measure(
    cases: Mapping[str, Callable[[], Any]], rounds: Iterable[Any], device: torch.device | None = None
) -> dict[str, list[float]]:
    """Milliseconds of every case in every round; a round runs each case once, so that drift of the machine hits all."""
    wait = _waiting(device)
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in rounds:
        for name, case in cases.items():
            wait()
            start = time.perf_counter()
            case()
            wait()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def _waiting(device: torch.device | None) -> Callable[[], None]:
    """What waits for the work that has been given to the device."""
    if device is None or device.type != "cuda":
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """Milliseconds of one layer in a map."""

    name: str
    op: str
    forward: float
    sweep: float
    kernels: Mapping[str, Choice]
    """By "forward", "up" and "down": what computes the layer's linear map, where it has one, and why nothing faster."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Milliseconds of a map, by layer."""

    layers: tuple[LayerTime, ...]
    """In the order of the forward pass."""
    rest: float
    """What is between the layers: sums of what several consumers share back, with the 1 x 1 convolutions that are
    multiplied out there; seeds, the map's own sum, Python."""

    @property
    def total(self) -> float:
        return self.rest + sum(layer.forward + layer.sweep for layer in self.layers)


def profile(method: ExcitationBackprop, x: torch.Tensor, target: Any, rounds: Iterable[Any] = range(5)) -> Profile:
    """The time of `method.run(x, target)` by layer: per layer the median over the rounds.

    On CUDA every layer is waited for, and nothing is replayed.
    """
    plan, wait = method.plan, _waiting(method.plan.device)
    with noting():
        method.calls(method.request(x, target), _Stopwatch(wait))  # packs the weights
    calls: list[tuple[_Stopwatch, float]] = []
    for _ in rounds:
        stopwatch = _Stopwatch(wait)
        start = time.perf_counter()
        method.calls(method.request(x, target), stopwatch)
        wait()
        calls.append((stopwatch, time.perf_counter() - start))
    nodes = [index for index in range(len(plan.graph.nodes)) if any(watch.has_run(index) for watch, _ in calls)]
    layers = []
    for index in nodes:
        forward, sweep = (
            median(watch.seconds[phase, index] for watch, _ in calls) * 1e3 for phase in ("forward", "sweep")
        )
        node, linear = plan.graph.nodes[index], plan.linear(index)
        layers.append(LayerTime(node.name, node.op, forward, sweep, {} if linear is None else linear.kernels()))
    rest = median(total - sum(watch.seconds.values()) for watch, total in calls) * 1e3
    return Profile(tuple(layers), max(0.0, rest))


class _Stopwatch:
    """The observer of one call that takes the time of every layer."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self.seconds: defaultdict[tuple[str, int], float] = defaultdict(float)
        """By phase ("forward", "sweep") and node; a contrast sweeps through its upper layers twice."""

    def has_run(self, index: int) -> bool:
        return ("forward", index) in self.seconds or ("sweep", index) in self.seconds

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[Any]:
        start = time.perf_counter()
        results = layer()
        self._wait()
        self.seconds[phase, index] += time.perf_counter() - start
        return results
