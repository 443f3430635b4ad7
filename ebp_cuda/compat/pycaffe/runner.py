"""Runs single layers of a network up and down, from blob to blob, with the engine's plan and rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from ...engine.plan import Plan, operation_of
from ...engine.signs import non_negative_values
from ...errors import InputError, ShapeError, UnsupportedError
from ...graph import Node
from ...rules import Rule
from ...rules.contraction import share_excitation
from ...rules.deferred import add
from ...rules.relevance import Relevance
from ...rules.tiled import forward_on_tiles
from .blob import Blob
from .gradients import rule_of
from .layer_sweep import UNTOUCHED, LayerSweep, State, Versions
from .modes import device, settings
from .network import Layer, Network
from .storage import Diff, Lazy, known

_OVERWRITABLE = frozenset(("conv", "conv_transpose", "linear"))
"""Operations whose output belongs to nobody else and is asked for by no rule of their own."""


Tensors = Sequence[torch.Tensor]


def _versions(layer: Layer) -> Versions:
    return tuple([(blob.tensor.data_ptr(), blob.version()) for blob in layer.blobs])


class Wires:
    """What a layer is connected to, looked up once for all passes."""

    def __init__(self, layer: Layer, network: Network, blobs: dict[str, Blob], signs: Collection[str]) -> None:
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

    def bottom_tensors(self, device: torch.device, up: bool = False) -> dict[str, torch.Tensor]:
        return {value: data.tensor(device, anew=up and is_input) for value, data, is_input in self.reads}

    @property
    def sound(self) -> bool:
        """Whether what the layers alone say about signs holds for the bottoms: a script may have written to them."""
        for data in self.signed:  # noqa: SIM110  a generator would take three times as long, for every layer of a pass
            if not data.computed:
                return False
        return True


class Runner:
    """The layers of one network over its blobs."""

    def __init__(self, network: Network, blobs: dict[str, Blob]) -> None:
        self.network, self.blobs = network, blobs
        self._plans: dict[torch.device, Plan] = {}
        self._states: dict[int, State] = {}
        self._divided: dict[int, str] = {}
        """Nodes where a sweep has divided since their last forward: by a "normalizer", or multiplied by a "gate"."""
        self._rectified: torch.Tensor | None = None
        """The last output that went through its ReLU already."""
        self._read = {layer.name: _versions(layer) for layer in network.layers if not layer.shared}
        """What the engine's copies of parameters were made from, where it has copies."""
        self._overwriting = frozenset(self._find_overwriting())
        self._before_relu = [self._hands_to_relu(place) for place in range(len(network.layers))]
        """By layer: whether the next one is an in-place ReLU over its output."""
        signs = non_negative_values(network.graph)
        self._wires = [Wires(layer, network, blobs, signs) for layer in network.layers]

    def plan(self) -> Plan:
        """The plan for the present device; to be asked for before each pass."""
        for layer in self.network.layers:
            for blob in layer.blobs:
                blob.version()  # layers may share memory, and any of them may be the first to run
        where = device()
        if where not in self._plans:
            self._plans[where] = Plan(self.network.graph, "caffe", where, torch.float32)
        return self._plans[where]

    def _find_overwriting(self) -> list[int]:
        """In-place ReLUs over a value that only they read."""
        graph, found = self.network.graph, []
        readers = [value for node in graph.nodes for value in node.inputs]
        for layer in self.network.layers:
            if layer.nodes and layer.bottoms == layer.tops and graph.nodes[layer.nodes[0]].op == "relu":
                source = graph.producer.get(layer.inputs[0])
                if source is not None and graph.nodes[source].op in _OVERWRITABLE:
                    found += [layer.nodes[0]] * (readers.count(layer.inputs[0]) == 1)
        return found

    def _hands_to_relu(self, place: int) -> bool:
        layer, after = self.network.layers[place], self.network.layers[place + 1 : place + 2]
        return any(relu.inputs == layer.outputs and self._overwriting & set(relu.nodes) for relu in after)

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

    def forward(self, index: int, plan: Plan, last: int) -> None:
        """Reads the bottoms of layer `index` and writes its tops, in a pass that ends with layer `last`."""
        layer = self.network.layers[index]
        if not layer.nodes:
            return  # an input; or a Split, whose tops share the data of its bottom
        wires = self._wires[index]
        bottoms = wires.bottom_tensors(plan.device, up=True)
        self._states[index] = state = self._state(layer, bottoms, plan, index < last and self._before_relu[index])
        sound = wires.sound
        for value, data in wires.writes:
            data.put(state.values[value], sound)

    def _state(self, layer: Layer, bottoms: dict[str, torch.Tensor], plan: Plan, through: bool = False) -> State:
        versions = self._sync(layer)
        state = State(dict(bottoms), {}, versions, plan.device)
        for index in layer.nodes:
            node = plan.graph.nodes[index]
            xs = [state.values[value] for value in node.inputs]
            saved: dict[str, Any] = {"overwrite": index in self._overwriting}
            try:
                ys = self._ahead(node, index, plan, xs, saved, through)
                if ys is None:
                    ys = operation_of(plan.graph, node).forward(node, plan.params(index), xs, saved)
            except RuntimeError as error:
                shapes = ", ".join(str(list(x.shape)) for x in xs)
                where = f"{plan.graph.origin}: layer '{layer.name}' ({layer.type})"
                raise ShapeError(f"{where} on {shapes}: {str(error).splitlines()[0]}") from error
            state.saved[index] = saved
            state.values.update(zip(node.outputs, ys, strict=False))
        return state

    def _ahead(
        self, node: Node, index: int, plan: Plan, xs: Tensors, saved: dict[str, Any], through: bool
    ) -> Tensors | None:
        """A convolution's forward with its normaliser, or the gate, beside it, where the last forward was followed by a
        sweep that asked for that and matrix tiles make both; `through` its in-place ReLU, which then has nothing to do.
        """
        if node.op == "relu" and xs[0] is self._rectified:
            return xs
        divided = self._divided.pop(index, None)
        if divided is None:
            return None
        ys = forward_on_tiles(node, plan.params(index), xs, saved, as_gate=through and divided == "gate", relu=through)
        self._rectified = None if ys is None or not through else ys[0]
        return ys

    # --- down -------------------------------------------------------------------------------------------------------

    def backward(self, index: int, plan: Plan) -> None:
        """Reads the diffs of the tops of layer `index` and writes those of its bottoms."""
        layer, wires = self.network.layers[index], self._wires[index]
        if wires.idle:
            return
        above = [blob.signal() for blob in wires.tops]
        if layer.type == "Split":
            self._write(index, [_sum_later(above, plan.device)])
            return
        rules = self._rules(layer) if layer.nodes else None
        if rules is None:
            return
        rels = [signal.relevance(plan.device) for signal in above]
        if not any(rels):
            self._write(index, [None] * len(layer.bottoms))
            return
        state = self._seen(index, plan)
        signs = plan.non_negative if wires.sound else frozenset()
        if wires.is_node and rules[0].down is share_excitation and rels[0] is not None:
            own = rels[0].factor is state.values[layer.outputs[0]]
            self._divided[layer.nodes[0]] = "gate" if own else "normalizer"
        sweep = LayerSweep(plan, layer, state, signs, rules, wires.is_node)
        if layer.blobs or len(layer.bottoms) > 1:
            self._write(index, sweep.run(rels))
        else:  # perhaps nobody reads it: then nobody works it out
            self._write(index, [Lazy(lambda: _zero_if_untouched(sweep.run(rels)[0]))])

    def _rules(self, layer: Layer) -> list[Rule] | None:
        """The rule of each node of a layer, last first; None where the original's layer writes no diffs."""
        graph = self.network.graph
        rules = [rule_of(graph.nodes[place].op, settings.backward) for place in reversed(layer.nodes)]
        found = [rule for rule in rules if rule is not None]
        if len(found) == len(rules):
            return found
        if not settings.strict and layer.type == "Eltwise":
            return None  # the original's product leaves the diffs of its bottoms as they are
        raise UnsupportedError(
            f"{self.network.net.origin}: layer '{layer.name}' ({layer.type}) has no backward pass in mode "
            f"'{settings.backward}': the original {'leaves stale diffs' if layer.type == 'Eltwise' else 'aborts'}"
        )

    def _seen(self, index: int, plan: Plan) -> State:
        """The layer's last forward, brought up to date with what has been written to its bottoms since."""
        layer, wires = self.network.layers[index], self._wires[index]
        state = self._states.get(index)
        if state is None:
            if settings.strict:
                where = f"{plan.graph.origin}: layer '{layer.name}'"
                raise InputError(f"{where}: backward before any forward through it; the original would use zeros")
            state = self._states[index] = self._state(layer, wires.bottom_tensors(plan.device), plan)
        now = {} if wires.in_place else wires.bottom_tensors(plan.device)
        if any(now[value] is not state.values[value] for value in now):
            state = self._states[index] = self._state(layer, now, plan)
        if state.device != plan.device:
            state = self._states[index] = self._state(
                layer, {v: state.values[v].to(plan.device) for v in layer.inputs}, plan
            )
        for value, data in wires.final:  # what a script has written to a top counts
            state.values[value] = data.tensor(state.device)
        versions = self._sync(layer)
        if versions != state.versions:
            for saved in state.saved.values():
                for key in [key for key in saved if key.startswith(("normalizer", "gate"))]:
                    del saved[key]
            state.versions = versions
        return state

    def _write(self, index: int, contents: Sequence[Any]) -> None:
        propagates = self.network.layers[index].propagates
        for blob, content, wanted in zip(self._wires[index].bottoms, contents, propagates, strict=True):
            if wanted and content is not UNTOUCHED:
                blob.signal().put(content, blob.shape)


def _zero_if_untouched(content: Any) -> Relevance | None:
    return None if content is UNTOUCHED else content


def _sum_later(signals: Sequence[Diff], where: torch.device) -> Lazy:
    taken = [signal.taken(where) for signal in signals]

    def total() -> Relevance | None:
        parts = [rel for rel in map(known, taken) if rel is not None]
        return add(parts) if parts else None

    return Lazy(total)
