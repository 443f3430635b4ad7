"""Runs the layers of one network from blob to blob: every layer is a slice of the engine's two passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...engine.passes import Edges, Sweep, Trace, advance
from ...engine.plan import Plan, Stage
from ...engine.signs import non_negative_values
from ...errors import InputError, UnsupportedError
from ...ops.modes import exact
from ...rules.relevance import Relevance, add
from .blob import Blob
from .gradients import backward_rule
from .modes import device, settings
from .network import Layer, LayerNetwork
from .storage import Content, Diff, Lazy, known

_OVERWRITABLE = frozenset(("conv", "conv_transpose", "linear"))
"""Operations whose output belongs to nobody else and is asked for by no rule of their own."""

Versions = tuple[tuple[int, int], ...]
"""Where each parameter of a layer lies and how often it may have been written to."""


def _versions(layer: Layer) -> Versions:
    return tuple([(blob.tensor.data_ptr(), blob.version()) for blob in layer.blobs])


class LayerBlobs:
    """The blobs that a layer reads and writes, looked up once for all passes."""

    def __init__(self, layer: Layer, network: LayerNetwork, blobs: dict[str, Blob], signs: Collection[str]) -> None:
        net = network.net
        self.bottoms = [blobs[name] for name in layer.bottoms]
        self.tops = [blobs[name] for name in layer.tops]
        self.reads = [(v, blob.values, v in net.inputs) for v, blob in zip(layer.inputs, self.bottoms, strict=True)]
        self.writes = [(v, blob.values) for v, blob in zip(layer.outputs, self.tops, strict=True)]
        self.signed = [data for value, data, _ in self.reads if value in signs]
        """Bottoms that cannot be negative, if it was layers that wrote them."""
        last = {blob for blob, values in net.versions.items() if values[-1] in layer.outputs}
        self.final = [(v, b.values) for v, b in zip(layer.outputs, self.tops, strict=True) if b.name in last]
        """Tops that no later layer writes over."""
        self.in_place = bool(set(layer.bottoms) & set(layer.tops))
        self.idle = not layer.needs_backward or not any(layer.propagates)
        nodes = [network.graph.nodes[place] for place in layer.nodes]
        self.is_node = [(list(n.inputs), list(n.outputs)) for n in nodes] == [(layer.inputs, layer.outputs)]
        """Whether the layer is one node of the engine, with the same connections."""

    def bottom_tensors(self, where: torch.device, up: bool = False) -> dict[str, torch.Tensor]:
        return {value: data.tensor(where, anew=up and is_input) for value, data, is_input in self.reads}

    @property
    def sound(self) -> bool:
        """Whether what the layers alone say about signs holds for the bottoms: a script may have written to them."""
        for data in self.signed:  # noqa: SIM110  a generator would take three times as long, for every layer of a pass
            if not data.computed:
                return False
        return True


@dataclass
class LayerTrace(Trace):
    """What a layer's last forward read and left."""

    versions: Versions = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Runner:
    """The layers of one network over its blobs."""

    def __init__(self, network: LayerNetwork, blobs: dict[str, Blob]) -> None:
        self.network, self.blobs = network, blobs
        self._plans: dict[torch.device, Plan] = {}
        self._traces: dict[int, LayerTrace] = {}
        self._swept: set[int] = set()
        """Nodes that an excitation sweep has visited since their last forward."""
        self._read = {layer.name: _versions(layer) for layer in network.layers if not layer.shared}
        """What the engine's copies of parameters were made from, where it has copies."""
        graph = network.graph
        self._rectified = [self._in_place_relu(place) for place in range(len(network.layers))]
        hidden = {value for values in self._rectified for value in values}
        self._shown = frozenset((*graph.inputs, *graph.producer)).difference(hidden)
        signs = non_negative_values(graph)
        self._layers = [LayerBlobs(layer, network, blobs, signs) for layer in network.layers]

    def plan(self) -> Plan:
        """The plan for the present device; to be asked for before each pass."""
        for layer in self.network.layers:
            for blob in layer.blobs:
                blob.version()  # layers may share memory, and any of them may be the first to run
        where = device()
        if where not in self._plans:
            self._plans[where] = Plan(self.network.graph, "caffe", where, torch.float32)
        return self._plans[where]

    def _in_place_relu(self, place: int) -> list[str]:
        """The outputs of a layer that nobody sees but an in-place ReLU right behind it, which writes over them."""
        graph, layers = self.network.graph, self.network.layers
        layer, after = layers[place], layers[place + 1 : place + 2]
        if not after or not after[0].nodes or graph.nodes[after[0].nodes[0]].op != "relu":
            return []
        if after[0].bottoms != after[0].tops or after[0].inputs != layer.outputs:
            return []
        readers = [value for node in graph.nodes for value in node.inputs]
        (value,) = after[0].inputs
        alone = readers.count(value) == 1 and graph.nodes[graph.producer[value]].op in _OVERWRITABLE
        return [value] if alone else []

    def _sync(self, layer: Layer) -> Versions:
        """Versions of the layer's parameters; brings the engine up to date with what scripts wrote to them."""
        if not layer.blobs:
            return ()
        versions = _versions(layer)
        if not layer.shared and self._read.get(layer.name) != versions:
            self.network.refresh(layer, params=True)
            self._read[layer.name] = versions
        return versions

    # --- up ---------------------------------------------------------------------------------------------------------

    def forward(self, first: int, last: int) -> None:
        """Runs the layers `first` to `last`: each reads its bottoms and writes its tops."""
        plan = self.plan()
        layers = self.network.layers[first : last + 1]
        nodes = {node for layer in layers for node in layer.nodes}
        # a pass that ends between a layer and its in-place ReLU shows what the ReLU has not seen
        stages = self._stages(plan, self._shown.union(self._rectified[last]), frozenset(self._swept & nodes))
        with exact(plan.device):
            for index in range(first, last + 1):
                if self.network.layers[index].nodes:  # no input; no Split, whose tops share the data of its bottom
                    self._forward(index, plan, stages)
        self._swept -= nodes

    def _stages(self, plan: Plan, keep: frozenset[str], divided: frozenset[int]) -> dict[int, Stage]:
        """By node: how it runs; where the last forward was followed by a sweep, with what that divided by beside it."""
        return {stage.index: stage for stage in plan.stages(keep, range(len(plan.graph.nodes)), divided)}

    def _forward(self, index: int, plan: Plan, stages: dict[int, Stage]) -> None:
        own = self._layers[index]
        trace = self._run(index, own.bottom_tensors(plan.device, up=True), plan, stages)
        sound = own.sound
        for value, data in own.writes:
            data.put(trace.values[value], sound)

    def _run(
        self, index: int, bottoms: dict[str, torch.Tensor], plan: Plan, stages: dict[int, Stage] | None = None
    ) -> LayerTrace:
        """The trace of the layer's forward over these bottoms."""
        layer = self.network.layers[index]
        versions = self._sync(layer)
        if stages is None:
            stages = self._stages(plan, self._shown.union(self._rectified[index]), frozenset())
        trace = self._traces[index] = LayerTrace(versions=versions, device=plan.device)
        trace.begin(bottoms)
        advance(plan, trace, [stages[node] for node in layer.nodes])
        return trace

    # --- down -------------------------------------------------------------------------------------------------------

    def backward(self, first: int, last: int) -> None:
        """Runs the layers `first` down to `last`: each reads the diffs of its tops and writes those of its bottoms."""
        plan = self.plan()
        with exact(plan.device):
            for index in range(first, last - 1, -1):
                self._backward(index, plan)

    def _backward(self, index: int, plan: Plan) -> None:
        layer, own, mode = self.network.layers[index], self._layers[index], settings.backward
        if own.idle:
            return
        signals = [blob.signal() for blob in own.tops]
        if layer.type == "Split":
            self._write(index, {0: _sum_later(signals, plan.device)})
            return
        if not layer.nodes or not self._has_rules(layer, mode):
            return
        above = [signal.relevance(plan.device) for signal in signals]
        if not any(above):
            self._write(index, dict.fromkeys(range(len(layer.bottoms))))
            return
        if mode == "eb":
            self._swept.update(layer.nodes)
        signs = plan.non_negative if own.sound else frozenset()
        sweep = Sweep(plan, self._current(index, plan), lambda node: backward_rule(node, mode), signs)
        seeds = {value: rel for value, rel in zip(layer.outputs, above, strict=True) if rel is not None}
        if layer.blobs or len(layer.bottoms) > 1:
            self._write(index, dict(self._below(index, sweep, seeds)))
        else:  # perhaps nobody reads it: then nobody computes it
            self._write(index, {0: Lazy(lambda: self._only_below(index, sweep, seeds))})

    def _below(self, index: int, sweep: Sweep, seeds: dict[str, Relevance]) -> dict[int, Relevance]:
        """The layer's slice of the sweep: by place among its bottoms, the relevance of those that get one."""
        layer = self.network.layers[index]
        edges: Edges = {}
        sweep.run(reversed(layer.nodes), seeds, edges=edges)
        if self._layers[index].is_node:
            return {place: rel for (_, place), rel in edges.items()}
        parts: dict[str, list[Relevance]] = {}
        for (node, place), rel in edges.items():
            parts.setdefault(sweep.plan.graph.nodes[node].inputs[place], []).append(rel)
        below = {}
        for place, value in enumerate(layer.inputs):
            shared_back = parts.get(value, [])
            if layer.inputs.count(value) > 1 and len(shared_back) > 1:
                below[place] = shared_back.pop(0)  # a layer that reads one value twice answers once for each
            elif shared_back:
                below[place] = add(shared_back)
        return below

    def _only_below(self, index: int, sweep: Sweep, seeds: dict[str, Relevance]) -> Relevance | None:
        """The same for the only bottom, whenever it is asked for."""
        with exact(sweep.plan.device):
            return self._below(index, sweep, seeds).get(0)

    def _has_rules(self, layer: Layer, mode: str) -> bool:
        """Whether the layer has a backward pass; False where the original's layer writes no diffs."""
        if all(backward_rule(self.network.graph.nodes[place], mode) is not None for place in layer.nodes):
            return True
        if not settings.strict and layer.type == "Eltwise":
            return False  # the original's product leaves the diffs of its bottoms as they are
        raise UnsupportedError(
            f"{self.network.net.origin}: layer '{layer.name}' ({layer.type}) has no backward pass in mode "
            f"'{mode}': the original {'leaves stale diffs' if layer.type == 'Eltwise' else 'aborts'}"
        )

    def _current(self, index: int, plan: Plan) -> LayerTrace:
        """The trace of the layer's last forward, brought up to date with what scripts have written since."""
        layer, own = self.network.layers[index], self._layers[index]
        trace = self._traces.get(index)
        if trace is None and settings.strict:
            where = f"{plan.graph.origin}: layer '{layer.name}'"
            raise InputError(f"{where}: backward before any forward through it; the original would use zeros")
        # of a layer in place the bottom holds its own output, and nothing can be compared with what it read
        now = own.bottom_tensors(plan.device) if trace is None or not own.in_place else {}
        if trace is None or any(now[value] is not trace.values[value] for value in now):
            trace = self._run(index, now, plan)
        elif trace.device != plan.device:
            trace = self._run(index, {value: trace.values[value].to(plan.device) for value in layer.inputs}, plan)
        for value, data in own.final:  # what a script has written to a top counts
            trace.values[value] = data.tensor(plan.device)
        versions = self._sync(layer)
        if versions != trace.versions:
            trace.forget_normalizers()
            trace.versions = versions
        return trace

    def _write(self, index: int, contents: Mapping[int, Content]) -> None:
        """Diffs of the layer's bottoms, by place; None stands for zeros. The others stay as they are."""
        for place, content in contents.items():
            if self.network.layers[index].propagates[place]:
                blob = self._layers[index].bottoms[place]
                blob.signal().put(content, blob.shape)


def _sum_later(signals: Sequence[Diff], where: torch.device) -> Lazy:
    taken = [signal.taken(where) for signal in signals]

    def total() -> Relevance | None:
        parts = [rel for rel in map(known, taken) if rel is not None]
        return add(parts) if parts else None

    return Lazy(total)
