"""Collects ONNX nodes, weights and functions layer by layer, and makes the model of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .functions import DOMAIN, OPSET, eltwise_name, function
from .layer import Layer

IR_VERSION = 8
"""The first one with model-local functions; onnxruntime and onnx of the last years read it."""

Dims = Sequence[int | str | None]


class OnnxWriter:
    """`taken`: the value names of the network, which constants and helper nodes must not take again."""

    def __init__(self, taken: set[str]) -> None:
        # nodes and weights go into the model at once: a message cannot be moved into another, only copied
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="ebp_cuda")
        self.graph = self._model.graph
        self.tensors: dict[str, np.ndarray] = {}
        """Initializer -> its numbers. They are not in the model, which would hold them a second time."""
        self.functions: dict[str, onnx.FunctionProto] = {}
        self.constant_values: set[str] = set()
        """Values that no input decides: what Parameter and constant DummyData layers hold."""
        self._taken = taken
        self._copies: dict[str, int] = {}
        self._node_names: set[str] = set()

    def value(self, name: str) -> str:
        """`name`, or a name like it that no value has yet; from now on it has one."""
        found = name
        while found in self._taken:
            self._copies[name] = self._copies.get(name, 0) + 1
            found = f"{name}'{self._copies[name]}"
        self._taken.add(found)
        return found

    def node(
        self,
        op: str,
        layer: Layer,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        suffix: str = "",
        domain: str = "",
        **attrs: Any,
    ) -> None:
        """A node named after the layer, from its bottoms to its tops unless told otherwise."""
        name = f"{layer.name}/{suffix}" if suffix else layer.name
        while name in self._node_names:  # Caffe lets two layers have one name, onnxruntime does not
            name += f"#{layer.index}"
        self._node_names.add(name)
        inputs = layer.inputs if inputs is None else inputs
        outputs = layer.outputs if outputs is None else outputs
        self.graph.node.append(helper.make_node(op, inputs, outputs, name, domain=domain, **attrs))

    def call(
        self,
        name: str,
        layer: Layer,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        suffix: str = "",
        **attrs: Any,
    ) -> None:
        """A call of the function `name` of domain "ebp_cuda.caffe"."""
        inputs = layer.inputs if inputs is None else inputs
        if name not in self.functions:
            self.functions[name] = function(name, inputs)
        self.node(name, layer, inputs, outputs, suffix=suffix, domain=DOMAIN, **attrs)

    def constant_value(self, layer: Layer, value: str, name: str, suffix: str = "") -> None:
        """The value is what the initializer `name` holds."""
        self.constant_values.add(value)
        self.node("Identity", layer, [name], [value], suffix=suffix)

    def weighted_sum(self, layer: Layer, coeff: Sequence[float]) -> None:
        self.call(eltwise_name(len(coeff)), layer, operation="SUM", coeff=[float(factor) for factor in coeff])

    def helper(self, op: str, layer: Layer, suffix: str, inputs: Sequence[str], **attrs: Any) -> str:
        """A node LAYER/SUFFIX in front of the layer's own; returns the value it writes."""
        value = self.value(f"{layer.name}/{suffix}")
        self.node(op, layer, inputs, [value], suffix=suffix, **attrs)
        return value

    def tensor(self, name: str, array: np.ndarray) -> str:
        """An initializer; returns its name."""
        name = self.value(name)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.graph.initializer.add(name=name, data_type=kind, dims=array.shape)
        self.tensors[name] = array
        return name

    def constant(self, name: str, numbers: Sequence[int]) -> str:
        return self.tensor(name, np.asarray(numbers, np.int64))

    def floats(self, name: str, numbers: Sequence[float]) -> str:
        return self.tensor(name, np.asarray(numbers, np.float32))

    def scalar(self, name: str, number: float) -> str:
        return self.tensor(name, np.asarray(number, np.float32))

    def weights(self, layer: Layer, arrays: Sequence[np.ndarray]) -> list[str]:
        """The layer's parameters as initializers LAYER/0, LAYER/1, ...; returns their names."""
        return [
            self.tensor(f"{layer.name}/{index}", np.asarray(array, np.float32)) for index, array in enumerate(arrays)
        ]

    def model(
        self,
        name: str,
        inputs: Mapping[str, Dims],
        outputs: Mapping[str, Dims],
        metadata: Mapping[str, Any],
    ) -> onnx.ModelProto:
        """The model, its initializers without their numbers; metadata values are stored as JSON text."""
        model, graph = self._model, self.graph
        graph.name = name or "caffe"
        for target, values in ((graph.input, inputs), (graph.output, outputs)):
            for value, dims in values.items():
                target.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, dims))
        model.opset_import.append(helper.make_opsetid("", OPSET))
        if self.functions:
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
            model.functions.extend(self.functions.values())
        for key, value in metadata.items():
            if value is not None:
                model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
        return model


def fill_in(model: onnx.ModelProto, tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Moves the numbers out of `tensors`, which is empty afterwards, into the initializers of the model."""
    for initializer in model.graph.initializer:
        data = tensors.pop(initializer.name).tobytes()  # in C order, whatever the order of the array
        initializer.raw_data = data
    return model
