"""ONNX file -> Graph. One small converter per operator; everything that is constant becomes a parameter.

A Caffe layer that ONNX cannot say in one operator arrives as a call of a function of the domain "ebp_cuda.caffe"
(importers/caffe writes them); it is read as the layer it is, not as the operators of its body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ...errors import EBPError, ModelError, UnsupportedError
from ...graph import Graph, Node
from ...rules import OPERATIONS
from ..gates import gates_last
from . import operators  # noqa: F401  they fill CONVERTERS
from .call import CAFFE_DOMAIN, CONVERTERS, NEWEST_OPSET, Call, Convert, own_layer
from .constants import Constants
from .scopes import Scoped, modules_of, name_by_modules
from .sizes import Sizes

METADATA_PREFIX = "ebp_cuda."
_INTEGERS = frozenset(("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And"))
Dims = dict[str, "tuple[int | str | None, ...] | None"]


def load_onnx(source: str | Path | onnx.ModelProto, arrays: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph of an ONNX file or of a model in memory.

    The number of images is free, whatever the file declares, unless the graph makes use of the number that it
    declares (constants of that length along the first axis, say): then it stays that number.

    Args:
        source: the file, or the model.
        arrays: the numbers of initializers by name, where the model does not hold them itself. The graph keeps those
            that can be written to, and copies of the others.

    Raises:
        ModelError: where the file is missing, truncated or inconsistent.
        UnsupportedError: for every operator without a converter, and for an attribute, input or size that a converter
            does not take; both name the opset.
    """
    origin = "ONNX model" if isinstance(source, onnx.ModelProto) else str(source)
    model = source if isinstance(source, onnx.ModelProto) else _read(Path(source))
    folder = None if model is source else Path(str(source)).parent
    try:
        constants = Constants(model, origin, folder, arrays or {})
        return gates_last(_read_graph(model, origin, constants))
    except UnicodeDecodeError as error:
        raise ModelError(f"{origin}: it holds text that is not UTF-8: {error}") from None


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


def _read_graph(model: onnx.ModelProto, origin: str, constants: Constants) -> Graph:
    declared = {value.name: _dims(value) for value in model.graph.input if value.name not in constants}
    fixed = [dims[0] for dims in declared.values() if dims and isinstance(dims[0], int)]
    try:
        return _Reader(model, origin, constants.copied() if fixed else constants, declared, any_batch=True).graph()
    except EBPError:
        if not fixed:
            raise
    return _Reader(model, origin, constants, declared, any_batch=False).graph()


class _Reader:
    """One attempt at a model: with any number of images, or with as many as it declares."""

    def __init__(
        self, model: onnx.ModelProto, origin: str, constants: Constants, declared: Dims, any_batch: bool
    ) -> None:
        self.model, self.origin, self.constants = model, origin, constants
        self.meta = self._metadata()
        self.meta.setdefault("source", "caffe" if "layers" in self.meta else "onnx")  # older files list layers alone
        try:
            self.types = {str(layer["name"]): str(layer["type"]) for layer in self.meta.get("layers", ())}
            self.names = {str(k): tuple(map(str, v)) for k, v in self.meta.pop("names", {}).items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{origin}: metadata 'ebp_cuda.names' or 'ebp_cuda.layers': {error}") from None
        self.inputs = {name: _input_shape(dims or (), any_batch) for name, dims in declared.items()}
        batches = {dims[0] for dims in declared.values() if dims}
        batch = batches.pop() if len(batches) == 1 else None
        self.example_batch = batch if any_batch and isinstance(batch, int) else None
        self.sizes = Sizes(model, declared, constants, any_batch)
        proto = model.graph
        self.readers: dict[str, set[str]] = {value.name: {""} for value in proto.output}
        for node in proto.node:
            for name in node.input:
                self.readers.setdefault(name, set()).add(f"{node.domain}::{node.op_type}")
        self.integers = {
            value.name for value in proto.input if value.type.tensor_type.elem_type not in _FLOATING and value.name
        }

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
        if self.sizes.opset > NEWEST_OPSET:
            raise UnsupportedError(
                f"{self.origin}: opset {self.sizes.opset}; the newest that is read is {NEWEST_OPSET}"
            )
        items: list[Scoped] = []
        unknown: list[str] = []
        for item in self.model.graph.node:
            items.append(Scoped(self._nodes_of(item, unknown), modules_of(item)))
        if unknown:
            raise UnsupportedError(f"{self.origin}: no importer for {', '.join(unknown)}")
        outputs = tuple(value.name for value in self.model.graph.output)
        for name in outputs:
            if name in self.constants or name in self.sizes.probes[0].values:
                raise UnsupportedError(f"{self.origin}: output '{name}' does not depend on what the images hold")
        if self.meta["source"] == "caffe":
            nodes = [node for item in items for node in item.nodes]
            return Graph(nodes, self.inputs, outputs, self._all_names(nodes, {}), self.meta)
        values = {value for item in items for node in item.nodes for value in node.outputs} | set(self.inputs)
        nodes, modules = name_by_modules([item for item in items if item.nodes], outputs, values)
        if modules:
            self.meta["modules"] = list(modules)
        own = [node for item in items for node in item.nodes]
        return Graph(nodes, self.inputs, outputs, self._all_names([*nodes, *own], modules), self.meta)

    def _all_names(self, nodes: Sequence[Node], modules: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Those of the metadata, of torch's modules, and the nodes' own, unless a value has the same name: that is the
        value then."""
        names = {**self.names, **modules}
        values = {value for node in nodes for value in node.outputs} | set(self.inputs)
        for node in nodes:
            if node.name not in values:
                names.setdefault(node.name, node.outputs)
        return names

    def _nodes_of(self, item: onnx.NodeProto, unknown: list[str]) -> list[Node]:
        """The nodes that one ONNX node becomes, none where it is a constant; `unknown` collects the others."""
        if not any(item.output):
            raise ModelError(f"{self.origin}: node '{item.name}' ({item.op_type}) writes nothing")
        if item.op_type == "Constant" and item.domain in ("", "ai.onnx"):
            self.constants[item.output[0]] = self._constant(item)
            return []
        call = Call(self, item)
        if self._folds(item, call):
            return []
        convert, reason = _converter(item, self.sizes.opset)
        if convert is None:
            unknown.append(f"'{call.name}' ({item.op_type}{reason})")
        if unknown or convert is None:
            return []
        made = self._converted(convert, call)
        self.sizes.add(made)
        stays = call.activations and self.integers.issuperset(call.activations) and item.op_type != "Cast"
        if item.op_type in _INTEGERS or stays:
            self.integers.update(call.outputs)
        return made

    def _folds(self, item: onnx.NodeProto, call: Call) -> bool:
        try:
            return self.sizes.fold(item)
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.origin}: {error}") from None
        except Exception as error:  # the reference implementation raises whatever numpy does
            raise ModelError(f"{call.where}: its inputs or attributes are not those of the operator: {error}") from None

    def _converted(self, convert: Convert, call: Call) -> list[Node]:
        try:
            result = convert(call)
        except ModelError as error:  # of the vocabulary, which does not know the file
            overlooked = call.unread(call.inputs)
            if overlooked is not None:
                raise call.refusal(overlooked) from None
            raise error if self.origin in str(error) else ModelError(f"{self.origin}: {error}") from None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"{call.where}: its inputs or attributes are not those of the operator: {error}") from None
        made = [result] if isinstance(result, Node) else result
        if call.proto.domain in ("", "ai.onnx"):
            self._check_all_is_used(call, made)
        return made

    def _check_all_is_used(self, call: Call, made: Sequence[Node]) -> None:
        """Nothing that the file says about the node may have been overlooked."""
        overlooked = call.unread({value for node in made for value in node.inputs})
        if overlooked is not None:
            raise call.refusal(overlooked)
        written = {value for node in made for value in node.outputs}
        for index, name in enumerate(call.outputs):
            if name in self.readers and name and name not in written and name not in self.constants:
                raise call.refusal(f"its output {index} ('{name}') is not computed here")

    def _constant(self, item: onnx.NodeProto) -> np.ndarray:
        if not item.attribute:
            raise ModelError(f"{self.origin}: constant '{item.name}' has no value")
        try:
            value = onnx.helper.get_attribute_value(item.attribute[0])
            array = self.constants.read(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        except ValueError as error:
            raise ModelError(f"{self.origin}: constant '{item.name}': {error}") from None
        if array.dtype.kind not in "fiubV":
            raise UnsupportedError(f"{self.origin}: constant '{item.name}' is {array.dtype}; wanted numbers")
        return array


def _converter(item: onnx.NodeProto, opset: int) -> tuple[Convert | None, str]:
    """What converts the node; None and why not, for people."""
    if item.domain not in ("", "ai.onnx", CAFFE_DOMAIN):
        return own_layer if f"{item.domain}::{item.op_type}" in OPERATIONS else None, ""
    if item.domain == CAFFE_DOMAIN:
        known = CONVERTERS.get(f"caffe.{item.op_type}")
        return known[0].convert if known else None, ""
    ranges = CONVERTERS.get(item.op_type, ())
    for entry in ranges:
        if entry.since <= opset <= entry.until:
            return entry.convert, ""
    known_opsets = " and ".join(f"{entry.since} to {entry.until}" for entry in ranges)
    return None, f" of opset {opset}; read: {known_opsets}" if known_opsets else f" of opset {opset}"


_FLOATING = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.UNDEFINED)
)


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """What the file says of an input's shape: numbers, names, or None for a free dim; None where it says nothing."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") else d.dim_param or None for d in dims)


def _input_shape(dims: Sequence[int | str | None], any_batch: bool) -> tuple[int | None, ...]:
    shape = [dim if isinstance(dim, int) else None for dim in dims]
    return (None, *shape[1:]) if shape and any_batch else tuple(shape)
