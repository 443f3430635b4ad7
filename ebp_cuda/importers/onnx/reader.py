"""ONNX file -> Graph. One small converter per operator; everything that is constant becomes a parameter.

A Caffe layer that ONNX cannot say in one operator arrives as a call of a function of the domain "ebp_cuda.caffe"
(importers/caffe writes them); it is read as the layer it is, not as the operators of its body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from ...errors import ModelError, UnsupportedError
from ...graph import Graph, Node
from ...rules import OPERATIONS
from ..gates import gates_last
from .call import Call, Converter, own_layer
from .converters import CONVERTERS
from .external import external_array
from .sizes import Sizes

CAFFE_DOMAIN = "ebp_cuda.caffe"
METADATA_PREFIX = "ebp_cuda."


def load_onnx(source: str | Path | onnx.ModelProto, arrays: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph of an ONNX file or of a model in memory.

    arrays: the numbers of initializers by name, where the model does not hold them itself. The graph keeps those that
    can be written to, and copies of the others.

    Raises ModelError where the file is missing, truncated or inconsistent, and UnsupportedError that lists every
    operator without a converter.
    """
    origin = "ONNX model" if isinstance(source, onnx.ModelProto) else str(source)
    model = source if isinstance(source, onnx.ModelProto) else _read(Path(source))
    folder = None if model is source else Path(str(source)).parent
    return gates_last(_Reader(model, origin, folder, arrays or {}).graph())


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not a readable ONNX file (truncated?): {str(error).splitlines()[0]}") from None
    if not model.graph.node or not model.opset_import:
        missing = "opset" if model.graph.node else "nodes"
        raise ModelError(f"{path}: not a whole ONNX model: it holds no {missing}")
    return model


class _Reader:
    def __init__(
        self, model: onnx.ModelProto, origin: str, folder: Path | None, arrays: Mapping[str, np.ndarray]
    ) -> None:
        self.model, self.origin, self.folder = model, origin, folder
        self.meta = self._metadata()
        try:
            self.types = {str(layer["name"]): str(layer["type"]) for layer in self.meta.get("layers", ())}
            self.names = {str(k): tuple(map(str, v)) for k, v in self.meta.pop("names", {}).items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{origin}: metadata 'ebp_cuda.names' or 'ebp_cuda.layers': {error}") from None
        self.constants = {
            t.name: arrays[t.name] if t.name in arrays else self._array(t) for t in model.graph.initializer
        }

    def _array(self, proto: onnx.TensorProto) -> np.ndarray:
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            return external_array(proto, self.folder, self.origin)
        try:
            return numpy_helper.to_array(proto)
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise ModelError(f"{self.origin}: initializer '{proto.name}': {error}") from None

    def _metadata(self) -> dict[str, Any]:
        meta: dict[str, Any] = {"origin": self.origin}
        for item in self.model.metadata_props:
            if item.key.startswith(METADATA_PREFIX):
                try:
                    meta[item.key[len(METADATA_PREFIX) :]] = json.loads(item.value)
                except (ValueError, RecursionError) as error:
                    raise ModelError(f"{self.origin}: metadata '{item.key}' is not JSON: {error}") from None
        return meta

    def graph(self) -> Graph:
        proto = self.model.graph
        inputs = {v.name: _shape(v) for v in proto.input if v.name not in self.constants}
        self.sizes = Sizes(self.model, inputs)
        nodes: list[Node] = []
        unknown: list[str] = []
        for item in proto.node:
            if not item.output:
                raise ModelError(f"{self.origin}: node '{item.name}' ({item.op_type}) writes nothing")
            if item.op_type == "Constant":
                self.constants[item.output[0]] = self._constant(item)
                continue
            call = Call(self, item)
            if self._folds(item, call):
                continue
            convert = _converter(item)
            if convert is None:
                unknown.append(f"'{call.name}' ({item.op_type})")
            elif not unknown:
                made = self._converted(convert, call)
                self.sizes.add(made)
                nodes.extend(made)
        if unknown:
            raise UnsupportedError(f"{self.origin}: no importer for {', '.join(unknown)}")
        names = dict(self.names)
        for node in nodes:
            names.setdefault(node.name, node.outputs)
        return Graph(nodes, inputs, tuple(v.name for v in proto.output), names, self.meta)

    def _folds(self, item: onnx.NodeProto, call: Call) -> bool:
        try:
            return self.sizes.fold(item, self.constants)
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.origin}: {error}") from None
        except Exception as error:  # the reference implementation raises whatever numpy does
            raise ModelError(f"{call.where}: its inputs or attributes are not those of the operator: {error}") from None

    def _converted(self, convert: Converter, call: Call) -> list[Node]:
        try:
            made = convert(call)
            return [made] if isinstance(made, Node) else made
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"{call.where}: its inputs or attributes are not those of the operator: {error}") from None

    def _constant(self, item: onnx.NodeProto) -> np.ndarray:
        if not item.attribute:
            raise ModelError(f"{self.origin}: constant '{item.name}' has no value")
        attribute = item.attribute[0]
        value = onnx.helper.get_attribute_value(attribute)
        return self._array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _converter(item: onnx.NodeProto) -> Converter | None:
    if item.domain in ("", "ai.onnx"):
        return CONVERTERS.get(item.op_type)
    if item.domain == CAFFE_DOMAIN:
        return CONVERTERS.get(f"caffe.{item.op_type}")
    return own_layer if f"{item.domain}::{item.op_type}" in OPERATIONS else None


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    shape: list[int | None] = [int(d.dim_value) if d.HasField("dim_value") else None for d in dims]
    return (None, *shape[1:]) if shape else ()
