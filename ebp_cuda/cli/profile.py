"""Where the time of a map goes: medians of interleaved runs, and the share of every layer."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..api import ExcitationBackprop
from ..engine.plan import Plan, Stage
from ..graph import Graph, Node
from ..net import Net, load
from ..rules import Rule


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

    `method` is one of graphs=False, used for nothing else meanwhile. On CUDA every layer is waited for.
    """
    plan, wait = method.plan, _waiting(method.plan.device)
    calls: list[tuple[Counter[int], Counter[int], float]] = []
    try:
        method.run(x, target)  # packs the weights
        for _ in rounds:
            timed = _Timed(plan, wait)
            method.plan = timed  # type: ignore[assignment]
            start = time.perf_counter()
            method.run(x, target)
            wait()
            calls.append((timed.up, timed.down, time.perf_counter() - start))
    finally:
        method.plan = plan
    nodes = [index for index in range(len(plan.graph.nodes)) if any(up[index] + down[index] for up, down, _ in calls)]
    layers = []
    for index in nodes:
        up = median(call[0][index] for call in calls) * 1e3
        down = median(call[1][index] for call in calls) * 1e3
        layers.append(LayerTime(plan.graph.nodes[index].name, plan.graph.nodes[index].op, up, down))
    rest = median(total - sum(up.values()) - sum(down.values()) for up, down, total in calls) * 1e3
    return Profile(tuple(layers), max(0.0, rest))


class _Timed:
    """A plan whose layers keep time; everything else is the plan's own."""

    def __init__(self, plan: Plan, wait: Callable[[], None]) -> None:
        self._plan, self._wait = plan, wait
        self.up: Counter[int] = Counter()
        self.down: Counter[int] = Counter()
        self._places = {id(node): index for index, node in enumerate(plan.graph.nodes)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def stages(self, *args: Any) -> list[Stage]:
        return [
            dataclasses.replace(stage, forward=self._keeping(stage.forward, self.up, stage.index))
            for stage in self._plan.stages(*args)
        ]

    def rule(self, node: Node) -> Rule | None:
        rule = self._plan.rule(node)
        if rule is None:
            return None
        return dataclasses.replace(rule, down=self._keeping(rule.down, self.down, self._places[id(node)]))

    def _keeping(self, function: Callable[..., Any], times: Counter[int], index: int) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            found = function(*args)
            self._wait()
            times[index] += time.perf_counter() - start  # type: ignore[assignment]
            return found

        return call
