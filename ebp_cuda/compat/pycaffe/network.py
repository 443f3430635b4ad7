"""A prototxt as the layers that pycaffe lists, automatic Split layers included, each with its nodes in the engine."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError, UnsupportedError, nearest_names
from ...graph import Graph
from ...importers.caffe import CaffeNet, ImportReport, infer_shapes, split_blob_names
from ...importers.caffe import Layer as Entry
from ...importers.caffe.checking import batch_statistics, takes_batch_statistics
from ...importers.caffe.data_layers import DATA_TYPES, input_shape
from ...importers.caffe.layers import LAYER_TYPES
from ...importers.caffe.layers.constants import dummy_constants
from ...importers.caffe.net import build_net
from ...importers.caffe.parameters import parameters
from ...importers.caffe.reading import read_prototxt
from ...importers.caffe.shapes import Shapes, context_of
from ...importers.caffe.training import is_loss
from ...importers.caffe.writer import OnnxWriter
from ...importers.onnx import load_onnx
from .blob import ParamBlob
from .modes import settings

_SHARED = {
    **dict.fromkeys(("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", "DepthwiseConv", "Deconvolution",
                     "InnerProduct"), ("weight", "bias")),
    "Scale": ("scale", "shift"), "Bias": ("shift",), "PReLU": ("weight",),
}  # fmt: skip
"""Layer types whose parameter blobs are the engine's parameters, seen in another shape at most."""


@dataclass
class Layer:
    """One layer as pycaffe lists it. `inputs` and `outputs` are the engine's values behind `bottoms` and `tops`."""

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    inputs: list[str]
    outputs: list[str]
    blobs: list[ParamBlob] = field(default_factory=list)
    entry: Entry | None = None
    nodes: list[int] = field(default_factory=list)
    """Places of its nodes in the graph."""
    shared: bool = True
    """Whether the engine reads the blobs' own memory; otherwise the nodes are made again when a blob changes."""
    needs_backward: bool = True
    propagates: list[bool] = field(default_factory=list)
    """Per bottom: whether a backward pass writes its diff."""


class LayerNetwork:
    """What a prototxt and its weights say, before anything runs."""

    def __init__(
        self,
        prototxt: str | Path,
        weights: str | Path | None,
        phase: str,
        level: int,
        stages: Iterable[str],
        stored_statistics: bool,
    ) -> None:
        message = read_prototxt(prototxt)
        if level:
            message.state.level = level
        message.state.stage.extend(stages)
        self.net = build_net(message, str(prototxt), phase)
        _check(self.net, stored_statistics)
        self.message = message
        self.input_shapes = _input_shapes(self.net)
        self.unread_shapes = _unread_shapes(self.net)
        """Shapes of inputs that no layer here reads: labels, whose losses are left out."""
        self.constants = _constants(self.net)
        """What the tops of constant DummyData layers hold at first, and None for those of Parameter layers."""
        self.shapes = {**self.unread_shapes, **infer_shapes(self.net, self.input_shapes)}
        self.last_shaped = len(self.net.layers) - 1
        """Index of the last entry of the file for which `shapes` are those of `input_shapes`."""
        self.report = ImportReport()
        arrays = parameters(
            self.net, self.shapes, weights, not settings.strict, settings.seed, self.report,
            allowed_by="caffe.set_strict(False)",
        )  # fmt: skip
        self.layers = _listed(self.net, {**self.input_shapes, **self.unread_shapes, **self.constants})
        self._make_params({entry.index: found for entry, found in arrays})
        self.graph = self._make_graph()
        _mark_backward(self.net, self.layers, bool(message.force_backward))

    def _make_params(self, arrays: dict[int, list[np.ndarray]]) -> None:
        memory: dict[tuple[int, int], torch.Tensor] = {}
        for layer in self.layers:
            for array in arrays.get(layer.entry.index, ()) if layer.entry else ():
                # parameters that layers share by name are one array
                key = (array.__array_interface__["data"][0], array.size)
                tensor = memory.setdefault(key, torch.from_numpy(np.array(array, np.float32)))
                layer.blobs.append(ParamBlob(tensor.reshape(array.shape)))

    def _make_graph(self) -> Graph:
        kept = [layer for layer in self.layers if layer.entry is not None and layer.type != "Parameter"]
        entries = [layer.entry for layer in kept if layer.entry is not None]
        graph = self._emitted(entries, {layer.entry.index: layer.blobs for layer in kept if layer.entry})
        place = 0
        for layer in kept:
            missing = set(layer.outputs)
            while missing:
                missing.difference_update(graph.nodes[place].outputs)
                layer.nodes.append(place)
                place += 1
        for layer in kept:
            layer.shared = self.bind(graph, layer)
        return graph

    def _emitted(self, entries: Sequence[Entry], blobs: dict[int, list[ParamBlob]]) -> Graph:
        writer = OnnxWriter({*self.shapes})
        for entry in entries:
            arrays = [blob.tensor.numpy() for blob in blobs.get(entry.index, ())]
            LAYER_TYPES[entry.type].emit(context_of(self.net, entry, self.shapes), writer, arrays)
        written = [value for entry in entries for value in entry.outputs]
        read = {value: list(self.shapes[value]) for entry in entries for value in entry.inputs if value not in written}
        listing = [{"name": entry.name, "type": entry.type} for entry in entries]
        dims = {value: list(self.shapes[value]) for value in written}
        model = writer.model(self.net.name, read, dims, {"ebp_cuda.layers": listing})
        # copies: a blob's memory is the engine's where `bind` says so, and nowhere else
        graph = load_onnx(model, {name: array.copy() for name, array in writer.tensors.items()})
        graph.meta["origin"] = self.net.origin
        return graph

    def bind(self, graph: Graph, layer: Layer) -> bool:
        """Let the engine read the layer's blobs themselves. False where it needs them in another form."""
        names = _SHARED.get(layer.type, ())
        if len(layer.blobs) > len(names):
            return False
        for blob, name in zip(layer.blobs, names, strict=False):
            places = [place for place in layer.nodes if name in graph.nodes[place].params]
            if not places:
                return False
            for place in places:
                node = graph.nodes[place]
                seen = _seen_as(blob.tensor, node.params[name])
                if seen is None:
                    return False
                graph.nodes[place] = replace(node, params={**node.params, name: seen})
        return True

    def adopt(self, layer: Layer, blobs: Sequence[ParamBlob]) -> None:
        """Let the layer use other parameter blobs, of the same shapes, in place of its own."""
        assert layer.entry is not None
        layer.blobs[:] = blobs
        made = self._emitted([layer.entry], {layer.entry.index: layer.blobs})
        for place, node in zip(layer.nodes, made.nodes, strict=True):
            self.graph.nodes[place] = replace(self.graph.nodes[place], params=node.params)
        layer.shared = self.bind(self.graph, layer)

    def refresh(self, layer: Layer, *, params: bool) -> None:
        """Make the layer's nodes again: their parameters from the blobs, or their settings for the present shapes."""
        assert layer.entry is not None
        made = self._emitted([layer.entry], {layer.entry.index: layer.blobs})
        for place, node in zip(layer.nodes, made.nodes, strict=True):
            old = self.graph.nodes[place]
            if params:
                for name, tensor in old.params.items():
                    tensor.copy_(node.params[name])
            else:
                self.graph.nodes[place] = replace(old, attrs=node.attrs)

    def reshape(self, inputs: Shapes, last: int) -> Shapes:
        """Shapes for other input shapes of all values up to entry `last` of the file; settings that depend on them
        follow. What lies behind keeps its shape, and need not fit."""
        shapes = infer_shapes(self.net, inputs, last)
        before, self.shapes = self.shapes, {**self.shapes, **shapes}
        self.input_shapes, self.last_shaped = dict(inputs), last
        if before != self.shapes:
            for layer in self.layers:
                entry = layer.entry
                reached = entry is not None and entry.index <= last
                if reached and entry and LAYER_TYPES[layer.type].bakes_size(context_of(self.net, entry, shapes)):
                    self.refresh(layer, params=False)
        return shapes


def _seen_as(blob: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor | None:
    """A view of `blob` that equals `wanted`: in its shape, or transposed."""
    if blob.numel() == wanted.numel():
        views = [blob.reshape(wanted.shape), *([blob.reshape(wanted.shape[::-1]).t()] if wanted.dim() == 2 else [])]
        for view in views:
            if torch.equal(view, wanted):
                return view
    return None


def _check(net: CaffeNet, stored_statistics: bool) -> None:
    for layer in net.kept():
        if layer.type not in LAYER_TYPES:
            raise UnsupportedError(
                f"{net.where(layer)}: no such layer type here{nearest_names(layer.type, LAYER_TYPES)}"
            )
        least, most = LAYER_TYPES[layer.type].bottoms
        if not least <= len(layer.bottoms) <= most:
            raise ModelError(f"{net.where(layer)}: {len(layer.bottoms)} bottoms; wanted {least} to {most}")
        if takes_batch_statistics(layer, net.phase) and not stored_statistics:
            raise UnsupportedError(f"{net.where(layer)}: {batch_statistics(layer, net.phase)}")


def _input_shapes(net: CaffeNet) -> Shapes:
    found: Shapes = {}
    for value, shape in net.inputs.items():
        if not shape or min(shape) < 1:
            raise ModelError(f"{net.origin}: input '{value}' has no shape in the file; wanted input_shape")
        found[value] = tuple(shape)
    if not found:
        raise ModelError(f"{net.origin}: the network has no input in phase {net.phase}")
    return found


def _constants(net: CaffeNet) -> dict[str, np.ndarray | None]:
    found: dict[str, np.ndarray | None] = {}
    for layer in net.layers:
        if layer.type == "Parameter" and not layer.dropped:
            found[layer.outputs[0]] = None
        elif layer.type == "DummyData" and layer.constant:
            found.update(zip(layer.outputs, dummy_constants(context_of(net, layer, {})), strict=True))
    return found


def _unread_shapes(net: CaffeNet) -> Shapes:
    """Shapes of the tops of data layers that nothing reads; a label of unknown size has one number an image."""
    batch = next((shape[0] for shape in net.inputs.values() if shape), 1)
    found: Shapes = {}
    for layer in net.layers:
        if layer.type not in (*DATA_TYPES, "Input") or layer.constant:
            continue
        for top, value in enumerate(layer.outputs):
            if value not in net.inputs:
                shape = input_shape(layer.proto, top, len(layer.tops)) or (batch,)
                found[value] = tuple(max(1, n) for n in shape)
    return found


def _listed(net: CaffeNet, fed: Container[str]) -> list[Layer]:
    """The layers that compute, the inputs, and a Split behind every top that several layers read."""
    kept = {entry.index for entry in net.kept()}
    reading = {entry.name for entry in net.kept()}
    splits = split_blob_names(net)
    for value in {value for value, _ in splits.values()}:
        users = [user for user, (read, _) in splits.items() if read == value]
        if not any(name in reading for name, _ in users):  # losses alone, which are left out
            splits = {user: split for user, split in splits.items() if user not in users}
    found: list[Layer] = []
    for entry in net.layers:
        is_input = entry.type in (*DATA_TYPES, "Input", "Parameter")
        if entry.index not in kept and not is_input:
            continue
        tops = [(t, v) for t, v in zip(entry.tops, entry.outputs, strict=True) if not is_input or v in fed]
        bottoms = [splits.get((entry.name, i), ("", blob))[1] for i, blob in enumerate(entry.bottoms)]
        layer = Layer(entry.name, entry.type, bottoms, [t for t, _ in tops], list(entry.inputs), [v for _, v in tops])
        layer.entry = None if is_input and entry.type != "Parameter" else entry
        found.append(layer)
        for top, (blob, value) in enumerate(zip(entry.tops, entry.outputs, strict=True)):
            stem = f"{blob}_{entry.name}_{top}_split"
            copies = [name for read, name in splits.values() if read == value and name.startswith(f"{stem}_")]
            if copies and value in layer.outputs:
                found.append(Layer(stem, "Split", [blob], copies, [value], [value] * len(copies)))
    return found


def _mark_backward(net: CaffeNet, layers: list[Layer], force: bool) -> None:
    """Which layers a backward pass visits, by Caffe's rules: all if forced, else those with something to learn at or
    below them and a loss above."""
    under_loss = {value for entry in net.layers if is_loss(entry.type) for value in entry.inputs}
    for entry in reversed(net.layers):
        if under_loss.intersection(entry.outputs):
            under_loss.update(entry.inputs)
    learns: set[str] = set()
    for layer in layers:
        layer.propagates = [force or blob in learns for blob in layer.bottoms]
        specs: Sequence[Any] = layer.entry.proto.param if layer.entry else ()
        rates = [specs[i].lr_mult if i < len(specs) else 1.0 for i in range(len(layer.blobs))]
        if any(layer.propagates) or any(rates):
            learns.update(layer.tops)
            layer.needs_backward = force or bool(under_loss.intersection(layer.outputs))
        else:
            layer.needs_backward = False
