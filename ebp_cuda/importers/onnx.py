"""ONNX file -> Graph. One small converter per operator; everything that is constant becomes a parameter.

A Caffe layer that ONNX cannot say in one operator arrives as a call of a function of the domain "ebp_cuda.caffe"
(importers/caffe writes them); it is read as the layer it is, not as the operators of its body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from ..errors import ModelError, UnsupportedError
from ..graph import Graph, Node

CAFFE_DOMAIN = "ebp_cuda.caffe"
METADATA_PREFIX = "ebp_cuda."


def load_onnx(source: str | Path | onnx.ModelProto) -> Graph:
    """The graph of an ONNX file or of a model in memory.

    Raises ModelError where the file is missing, truncated or inconsistent, and UnsupportedError that lists every
    operator without a converter.
    """
    origin = "ONNX model" if isinstance(source, onnx.ModelProto) else str(source)
    model = source if isinstance(source, onnx.ModelProto) else _read(Path(source))
    return _Reader(model, origin).graph()


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not a readable ONNX file (truncated?): {str(error).splitlines()[0]}") from None
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: it holds no nodes")
    return model


class Call:
    """One ONNX node as its converter sees it: inputs, attributes and constants by name."""

    def __init__(self, reader: _Reader, proto: onnx.NodeProto) -> None:
        self.reader, self.proto = reader, proto
        self.name = proto.name or proto.output[0]
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.attrs = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        value = self.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, index: int) -> np.ndarray | None:
        """Input `index` as an array if it is a constant, else None (also where the input is absent)."""
        name = self.inputs[index] if index < len(self.inputs) else ""
        return self.reader.constants.get(name)

    def required(self, index: int, what: str) -> np.ndarray:
        value = self.constant(index)
        if value is None:
            raise UnsupportedError(f"{self.where}: its {what} is computed by the graph; wanted a constant")
        return value

    def optional(self, index: int, what: str) -> np.ndarray | None:
        """Like `required`, but None where the input is absent."""
        absent = index >= len(self.inputs) or not self.inputs[index]
        return None if absent else self.required(index, what)

    @property
    def where(self) -> str:
        return f"{self.reader.origin}: node '{self.name}' ({self.proto.op_type})"

    @property
    def activations(self) -> list[str]:
        return [name for name in self.inputs if name and name not in self.reader.constants]

    def node(self, op: str, attrs: dict[str, Any] | None = None, params: dict[str, np.ndarray] | None = None) -> Node:
        """A node of the vocabulary that reads this call's activations and writes its first output."""
        source = self.reader.types.get(self.name, self.proto.op_type)
        tensors = {name: _tensor(array) for name, array in (params or {}).items()}
        return Node(self.name, op, tuple(self.activations), (self.outputs[0],), attrs or {}, tensors, source)


def _tensor(array: np.ndarray) -> torch.Tensor:
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


Converter = Callable[[Call], Node]
CONVERTERS: dict[str, Converter] = {}


def converter(*names: str) -> Callable[[Converter], Converter]:
    """Decorator that enters a converter for ONNX operators ("Conv") or Caffe functions ("caffe.Scale")."""

    def enter(function: Converter) -> Converter:
        for name in names:
            CONVERTERS[name] = function
        return function

    return enter


class _Reader:
    def __init__(self, model: onnx.ModelProto, origin: str) -> None:
        self.model, self.origin = model, origin
        self.meta = self._metadata()
        self.types = {layer["name"]: layer["type"] for layer in self.meta.get("layers", ())}
        self.constants = {t.name: self._array(t) for t in model.graph.initializer}

    def _array(self, proto: onnx.TensorProto) -> np.ndarray:
        try:
            return numpy_helper.to_array(proto)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{self.origin}: initializer '{proto.name}': {error}") from None

    def _metadata(self) -> dict[str, Any]:
        meta: dict[str, Any] = {"origin": self.origin}
        for item in self.model.metadata_props:
            if item.key.startswith(METADATA_PREFIX):
                try:
                    meta[item.key[len(METADATA_PREFIX) :]] = json.loads(item.value)
                except json.JSONDecodeError as error:
                    raise ModelError(f"{self.origin}: metadata '{item.key}' is not JSON: {error}") from None
        return meta

    def graph(self) -> Graph:
        proto = self.model.graph
        inputs = {v.name: _shape(v) for v in proto.input if v.name not in self.constants}
        nodes: list[Node] = []
        unknown: list[str] = []
        for item in proto.node:
            if item.op_type == "Constant":
                self.constants[item.output[0]] = self._constant(item)
                continue
            key = f"caffe.{item.op_type}" if item.domain == CAFFE_DOMAIN else item.op_type
            call = Call(self, item)
            if key not in CONVERTERS or item.domain not in ("", "ai.onnx", CAFFE_DOMAIN):
                unknown.append(f"'{call.name}' ({item.op_type})")
            elif not unknown:
                nodes.append(CONVERTERS[key](call))
        if unknown:
            raise UnsupportedError(f"{self.origin}: no importer for {', '.join(unknown)}")
        names = {str(k): tuple(v) for k, v in self.meta.pop("names", {}).items()}
        for node in nodes:
            names.setdefault(node.name, node.outputs)
        return Graph(nodes, inputs, tuple(v.name for v in proto.output), names, self.meta)

    def _constant(self, item: onnx.NodeProto) -> np.ndarray:
        attribute = item.attribute[0]
        value = onnx.helper.get_attribute_value(attribute)
        return self._array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    shape: list[int | None] = [int(d.dim_value) if d.HasField("dim_value") else None for d in dims]
    return (None, *shape[1:]) if shape else ()


def spatial(call: Call, rank: int) -> dict[str, Any]:
    """kernel-independent geometry attributes of a convolution or pooling node over `rank` spatial axes."""
    if call.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedError(f"{call.where}: auto_pad {call.attr('auto_pad')}; wanted explicit pads")
    pads = call.attr("pads") or [0] * (2 * rank)
    return {
        "stride": tuple(call.attr("strides") or [1] * rank),
        "padding": tuple(pads[:rank]),
        "padding_end": tuple(pads[rank:]),
        "dilation": tuple(call.attr("dilations") or [1] * rank),
    }


def axes_of(call: Call) -> Sequence[int]:
    """The axes of a Reduce, Squeeze or Slice node, given as an attribute (older opsets) or as input 1."""
    given = call.attr("axes")
    return [int(n) for n in (given if given is not None else call.required(1, "axes"))]


from . import onnx_ops as _onnx_ops  # noqa: E402,F401  the converters enter themselves
