"""A prototxt as the network that one phase runs: its layers, and every content that a blob ever has under a name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, ModelError, nearest_names
from .data_layers import input_shape
from .layer import Layer
from .reading import parse_scanned, scanned_prototxt
from .schema import enum_name
from .text import Scan, Unknown
from .training import drop_training_parts
from .upgrade import upgrade


@dataclass
class CaffeNet:
    """The network of one phase. Values are in single-assignment form.

    The last content of a blob carries the blob's name, an earlier one is BLOB@LAYER with the layer that wrote it. An
    input that a layer overwrites in place is the exception: it keeps its name, because that is what is fed.
    """

    origin: str
    name: str
    phase: str
    layers: list[Layer]
    inputs: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    """Network inputs and their declared shapes; None where the file gives none."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    """Blob -> its values, first to last."""
    unknown: list[Unknown] = field(default_factory=list)
    """Everything in the file that no schema knows."""
    wanted: list[str] = field(default_factory=list)
    """Values that were asked for by name; empty for all that nothing reads."""

    def kept(self) -> list[Layer]:
        """The layers that compute something, in file order."""
        return [layer for layer in self.layers if not layer.dropped and not layer.brings_data]

    def outputs(self) -> list[str]:
        """The values that were asked for, or those that no layer of `kept` reads."""
        if self.wanted:
            return self.wanted
        kept = self.kept()
        read = {value for layer in kept for value in layer.inputs}
        return [value for layer in kept for value in layer.outputs if value not in read]

    def where(self, layer: Layer) -> str:
        """The layer for a message: FILE: layer 'conv1' (Convolution)."""
        return f"{self.origin}: layer '{layer.name}' ({layer.type})"

    def where_line(self, line: int) -> str:
        return f"{self.origin}:{line}" if line else self.origin

    def restrict(self, names: Sequence[str]) -> None:
        """Keeps only what the named blobs or layers depend on. Raises InputError for a name that there is not."""
        tops = {layer.name: layer.outputs for layer in self.kept() if layer.outputs}
        for name in names:
            values = self.versions.get(name) or tops.get(name)
            if not values:
                raise InputError(
                    f"{self.origin}: no blob or layer '{name}'{nearest_names(name, [*self.versions, *tops])}"
                )
            self.wanted.append(values[-1])
        needed = set(self.wanted)
        for layer in reversed(self.layers):
            if needed.isdisjoint(layer.outputs):
                layer.dropped = True
            else:
                layer.dropped = False
                needed.update(layer.inputs)
        made = {value for layer in self.kept() for value in layer.outputs}
        for name, value in zip(names, self.wanted, strict=True):
            if value not in made:
                raise InputError(f"{self.origin}: nothing computes '{name}'; wanted the blob of a layer")
        self.inputs.clear()
        _collect_inputs(self)


def read_net(prototxt: str | Path, phase: str = "TEST") -> CaffeNet:
    """The network that `phase` ("TEST" or "TRAIN") of a prototxt file runs. Raises ModelError, InputError."""
    return _built(scanned_prototxt(prototxt), str(prototxt), phase)


def parse_net(text: str, phase: str = "TEST", origin: str = "prototxt") -> CaffeNet:
    """`read_net` for prototxt text."""
    return _built(parse_scanned(text, origin), origin, phase)


def _built(parsed: tuple[Any, Scan], origin: str, phase: str) -> CaffeNet:
    return build_net(parsed[0], origin, phase, parsed[1])


def build_net(message: Any, origin: str, phase: str, scan: Scan | None = None) -> CaffeNet:
    """The network of a `NetParameter`, any format that `upgrade` takes; `scan` tells what its text held besides."""
    if phase not in ("TEST", "TRAIN"):
        raise InputError(f"phase '{phase}'; wanted 'TEST' or 'TRAIN'{nearest_names(str(phase), ('TEST', 'TRAIN'))}")
    scan = Scan() if scan is None else scan
    message, entries = upgrade(message, origin, scan.types)
    unknown: dict[int | None, list[Unknown]] = {}
    for item in scan.unknown:
        if not item.harmless:
            unknown.setdefault(item.entry, []).append(item)
    state = (phase, message.state.level, set(message.state.stage))
    layers: list[Layer] = []
    elsewhere: dict[str, str] = {}
    for proto, entry in zip(message.layer, entries, strict=True):
        if not _included(proto, state, origin):
            elsewhere.update(dict.fromkeys(proto.top, proto.name))
            continue
        name = proto.name or (proto.top[0] if proto.top else f"layer{len(layers)}")
        layer = Layer(len(layers), name, proto.type, tuple(proto.bottom), tuple(proto.top), proto)
        if entry is not None:
            layer.line, layer.unknown = scan.lines[entry] if scan.lines else 0, unknown.get(entry, [])
        layers.append(layer)
    net = CaffeNet(origin, message.name, phase, layers, unknown=scan.unknown)
    _assign_values(net, elsewhere)
    drop_training_parts(net.layers)
    _mark_constants(net)
    _collect_inputs(net)
    return net


def network_layers(prototxt: str | Path, phase: str = "TEST") -> list[dict[str, Any]]:
    """A small listing of a prototxt: [{"name", "type", "bottoms", "tops"}, ...] in file order."""
    return listing(layer for layer in read_net(prototxt, phase).layers if not layer.dropped)


def listing(layers: Any) -> list[dict[str, Any]]:
    """The entries of `network_layers` for some layers."""
    return [{"name": x.name, "type": x.type, "bottoms": list(x.bottoms), "tops": list(x.tops)} for x in layers]


def split_blob_names(net: CaffeNet) -> dict[tuple[str, int], tuple[str, str]]:
    """The blobs that Caffe inserts where several layers read one value (its automatic Split layers).

    Returns {(name of the reading layer, index of its bottom): (value read, name of the split's blob)}; the name is
    BLOB_LAYER_TOP_split_K for top number TOP of layer LAYER and reader number K. Reader 0 is the loss itself where the
    top has a loss weight of its own. Losses and Accuracy layers count as readers although `kept` leaves them out.
    """
    weight = {
        value
        for layer in net.layers
        for value, factor in zip(layer.outputs, layer.proto.loss_weight, strict=False)
        if factor
    }
    readers: dict[str, list[tuple[str, int]]] = {}
    for layer in net.layers:
        for index, value in enumerate(layer.inputs):
            readers.setdefault(value, []).append((layer.name, index))
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for layer in net.layers:
        for top, (blob, value) in enumerate(zip(layer.tops, layer.outputs, strict=True)):
            offset, users = int(value in weight), readers.get(value, [])
            if len(users) + offset > 1:
                for k, user in enumerate(users, start=offset):
                    found[user] = (value, f"{blob}_{layer.name}_{top}_split_{k}")
    return found


def _included(layer: Any, state: tuple[str, int, set[str]], origin: str) -> bool:
    if layer.include and layer.exclude:
        raise ModelError(f"{origin}: layer '{layer.name}' has both include and exclude rules; Caffe takes one kind")
    if layer.include:
        return any(_rule_holds(rule, state) for rule in layer.include)
    return not any(_rule_holds(rule, state) for rule in layer.exclude)


def _rule_holds(rule: Any, state: tuple[str, int, set[str]]) -> bool:
    phase, level, stages = state
    return (
        (not rule.HasField("phase") or enum_name(rule, "phase") == phase)
        and (not rule.HasField("min_level") or level >= rule.min_level)
        and (not rule.HasField("max_level") or level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def _assign_values(net: CaffeNet, elsewhere: Mapping[str, str]) -> None:
    """Fill `inputs` and `outputs` of every layer, and `net.versions`; refuse what Caffe refuses.

    elsewhere: blob -> the layer that writes it in another phase, level or stage.
    """
    writes: dict[str, list[Layer]] = {}
    for layer in net.layers:
        for blob in layer.tops:
            if not blob:
                raise ModelError(f"{net.where(layer)} writes a blob without a name")
            if blob in writes and blob not in layer.bottoms:
                raise ModelError(
                    f"{net.where(layer)} writes blob '{blob}', which layer '{writes[blob][-1].name}' has written "
                    "already; only an in-place layer may do so"
                )
            writes.setdefault(blob, []).append(layer)
    current: dict[str, str] = {}
    taken = set(writes)
    for layer in net.layers:
        for blob in layer.bottoms:
            if blob not in current:
                raise ModelError(
                    f"{net.where(layer)} reads blob '{blob}', which no earlier layer writes"
                    + (_left_out(net, elsewhere[blob]) if blob in elsewhere else nearest_names(blob, current))
                )
            layer.inputs.append(current[blob])
        for blob in layer.tops:
            value = _value_name(blob, layer, writes[blob], taken)
            taken.add(value)
            current[blob] = value
            layer.outputs.append(value)
            net.versions.setdefault(blob, []).append(value)


def _left_out(net: CaffeNet, name: str) -> str:
    other = "TRAIN" if net.phase == "TEST" else "TEST"
    return (
        f" in phase {net.phase}; layer '{name}' does, but its include or exclude rules leave it out there: "
        f"phase='{other}' (--phase {other}) takes the other side"
    )


def _value_name(blob: str, layer: Layer, writers: Sequence[Layer], taken: Collection[str]) -> str:
    plain = writers[0] if writers[0].brings_data else writers[-1]
    if layer is plain:
        return blob
    name = f"{blob}@{layer.name}"
    while name in taken:
        name = f"{name}#{layer.index}"
    return name


def _mark_constants(net: CaffeNet) -> None:
    """DummyData stands for the data where the network has nothing else to read, and is a constant beside it."""
    read = {value for layer in net.kept() for value in layer.inputs}
    sources = [layer for layer in net.layers if layer.brings_data and not read.isdisjoint(layer.outputs)]
    if any(layer.type != "DummyData" for layer in sources):
        for layer in sources:
            layer.constant = layer.type == "DummyData"


def _collect_inputs(net: CaffeNet) -> None:
    """An input that only feeds a loss, such as a label, has gone with it."""
    read = {value for layer in net.kept() for value in layer.inputs}
    for layer in net.layers:
        if layer.brings_data:
            for index, value in enumerate(layer.outputs):
                if value in read:
                    net.inputs[value] = input_shape(layer.proto, index, len(layer.tops))
