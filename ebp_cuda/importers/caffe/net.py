"""A prototxt as the network that one phase runs: its layers, and every content that a blob ever has under a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, ModelError, nearest_names
from .reading import parse_prototxt, read_prototxt
from .schema import enum_name
from .upgrade import upgrade

DATA_TYPES = frozenset({"Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "DummyData"})
SINK_TYPES = frozenset({"Accuracy", "Silence", "HDF5Output"})


def is_loss(kind: str) -> bool:
    """Whether a layer type computes a training loss: SoftmaxWithLoss, EuclideanLoss, ..."""
    return kind.endswith("Loss")


@dataclass
class Layer:
    """One layer of the phase. `bottoms` and `tops` are blob names, `inputs` and `outputs` the values they hold here."""

    index: int
    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    proto: Any
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    stored: int = 0
    """Parameter blobs that the weights file holds for the layer."""
    dropped: bool = False
    """Only trains, measures or swallows (a loss, Accuracy, Silence), or feeds nothing but such layers."""


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

    def kept(self) -> list[Layer]:
        """The layers that compute something, in file order."""
        return [layer for layer in self.layers if not layer.dropped and layer.type not in (*DATA_TYPES, "Input")]

    def outputs(self) -> list[str]:
        """Values that no layer of `kept` reads."""
        kept = self.kept()
        read = {value for layer in kept for value in layer.inputs}
        return [value for layer in kept for value in layer.outputs if value not in read]

    def where(self, layer: Layer) -> str:
        """The layer for a message: FILE: layer 'conv1' (Convolution)."""
        return f"{self.origin}: layer '{layer.name}' ({layer.type})"


def read_net(prototxt: str | Path, phase: str = "TEST") -> CaffeNet:
    """The network that `phase` ("TEST" or "TRAIN") of a prototxt file runs. Raises ModelError, InputError."""
    return build_net(read_prototxt(prototxt), str(prototxt), phase)


def parse_net(text: str, phase: str = "TEST", origin: str = "prototxt") -> CaffeNet:
    """`read_net` for prototxt text."""
    return build_net(parse_prototxt(text, origin), origin, phase)


def build_net(message: Any, origin: str, phase: str) -> CaffeNet:
    """The network of a `NetParameter`, any format that `upgrade` takes."""
    if phase not in ("TEST", "TRAIN"):
        raise InputError(f"phase '{phase}'; wanted 'TEST' or 'TRAIN'{nearest_names(str(phase), ('TEST', 'TRAIN'))}")
    message = upgrade(message, origin)
    state = (phase, message.state.level, set(message.state.stage))
    layers: list[Layer] = []
    for proto in message.layer:
        if not _included(proto, state, origin):
            continue
        name = proto.name or (proto.top[0] if proto.top else f"layer{len(layers)}")
        layers.append(Layer(len(layers), name, proto.type, tuple(proto.bottom), tuple(proto.top), proto))
    net = CaffeNet(origin, message.name, phase, layers)
    _assign_values(net)
    _drop_training_parts(net)
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


def _assign_values(net: CaffeNet) -> None:
    """Fill `inputs` and `outputs` of every layer, and `net.versions`; refuse what Caffe refuses."""
    writes: dict[str, list[Layer]] = {}
    for layer in net.layers:
        for blob in layer.tops:
            if blob in writes and blob not in layer.bottoms:
                raise ModelError(
                    f"{net.where(layer)} writes blob '{blob}', which layer '{writes[blob][-1].name}' has written "
                    "already; only an in-place layer may do so"
                )
            writes.setdefault(blob, []).append(layer)
    current: dict[str, str] = {}
    for layer in net.layers:
        for blob in layer.bottoms:
            if blob not in current:
                raise ModelError(
                    f"{net.where(layer)} reads blob '{blob}', which no earlier layer writes"
                    f"{nearest_names(blob, current)}"
                )
            layer.inputs.append(current[blob])
        for blob in layer.tops:
            value = _value_name(blob, layer, writes[blob], net.versions)
            current[blob] = value
            layer.outputs.append(value)
            net.versions.setdefault(blob, []).append(value)


def _value_name(blob: str, layer: Layer, writers: Sequence[Layer], versions: Mapping[str, list[str]]) -> str:
    input_first = writers[0].type in (*DATA_TYPES, "Input")
    plain = writers[0] if input_first else writers[-1]
    if layer is plain:
        return blob
    name = f"{blob}@{layer.name}"
    return name if name not in versions.get(blob, ()) else f"{name}#{layer.index}"


def _drop_training_parts(net: CaffeNet) -> None:
    """Mark losses and their like, and what only carries a label to them (sliced or reshaped on the way)."""
    carriers = ("Slice", "Reshape", "Flatten", "Split", *DATA_TYPES)
    read_by_kept: set[str] = set()
    read_by_dropped: set[str] = set()
    for layer in reversed(net.layers):
        outputs = set(layer.outputs)
        for_loss_only = outputs <= read_by_dropped and not outputs & read_by_kept
        layer.dropped = is_loss(layer.type) or layer.type in SINK_TYPES or (layer.type in carriers and for_loss_only)
        (read_by_dropped if layer.dropped else read_by_kept).update(layer.inputs)


def _collect_inputs(net: CaffeNet) -> None:
    read = {value for layer in net.kept() for value in layer.inputs}
    for layer in net.layers:
        if layer.type == "Input":
            shapes = [tuple(int(n) for n in shape.dim) for shape in layer.proto.input_param.shape]
            if len(shapes) == 1:
                shapes = shapes * len(layer.tops)
            for index, value in enumerate(layer.outputs):
                # an input that only feeds a loss, such as a label, has gone with it
                if value in read:
                    net.inputs[value] = shapes[index] if index < len(shapes) else None
        elif layer.type in DATA_TYPES:
            for value in layer.outputs:
                if value in read:
                    net.inputs[value] = data_shape(layer)


def data_shape(layer: Layer) -> tuple[int, ...] | None:
    """Shape that a data layer's first top has by the file alone: known from crop_size or explicit sizes, else None."""
    proto = layer.proto
    if layer.type == "MemoryData":
        memory = proto.memory_data_param
        return (memory.batch_size, memory.channels, memory.height, memory.width)
    if layer.type == "DummyData" and proto.dummy_data_param.shape:
        return tuple(int(n) for n in proto.dummy_data_param.shape[0].dim)
    options = proto.image_data_param if layer.type == "ImageData" else proto.data_param
    crop = proto.transform_param.crop_size or options.crop_size
    channels = 1 if proto.transform_param.force_gray or not getattr(options, "is_color", True) else 3
    return (max(options.batch_size, 1), channels, crop, crop) if crop else None


def stated_preprocess(net: CaffeNet) -> dict[str, Any] | None:
    """What a data layer says about turning a BGR photo into the input, as metadata "ebp_cuda.preprocess".

    None where there is no such layer, or it takes its mean from a file of its own.
    """
    for layer in net.layers:
        transform = layer.proto.transform_param
        if layer.dropped or layer.type not in ("Data", "ImageData") or not layer.proto.HasField("transform_param"):
            continue
        mean = list(transform.mean_value) or [0.0]
        if transform.mean_file or transform.force_gray or len(mean) not in (1, 3) or not transform.scale:
            return None
        return {
            "size": [transform.crop_size] * 2 if transform.crop_size else None,
            "shortest_side": None,
            "channel_order": "BGR",
            "raw_scale": 255,
            "mean": mean * 3 if len(mean) == 1 else mean,
            "std": [1 / transform.scale] * 3,
        }
    return None
