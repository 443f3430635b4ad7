"""One ONNX node as a converter sees it, and the table that the converters enter themselves in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import onnx
import torch

from ...errors import UnsupportedError
from ...graph import Node


class Model(Protocol):
    """What a call needs to know of the model that it stands in."""

    origin: str
    types: dict[str, str]
    """Caffe layer types by node name, where the model came from Caffe."""
    constants: dict[str, np.ndarray]


class Call:
    """One ONNX node as its converter sees it: inputs, attributes and constants by name."""

    def __init__(self, model: Model, proto: onnx.NodeProto) -> None:
        self.model, self.proto = model, proto
        self.name = proto.name or proto.output[0]
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.attrs = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        value = self.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, index: int) -> np.ndarray | None:
        """Input `index` as an array if it is a constant, else None (also where the input is absent)."""
        name = self.inputs[index] if index < len(self.inputs) else ""
        return self.model.constants.get(name)

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
        return f"{self.model.origin}: node '{self.name}' ({self.proto.op_type})"

    @property
    def activations(self) -> list[str]:
        return [name for name in self.inputs if name and name not in self.model.constants]

    def node(self, op: str, attrs: dict[str, Any] | None = None, params: dict[str, np.ndarray] | None = None) -> Node:
        """A node of the vocabulary that reads this call's activations and writes its first output."""
        source = self.model.types.get(self.name, self.proto.op_type)
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


def own_layer(call: Call) -> Node:
    """A node of a user's domain, named "domain::OpType" (see rules.register_operation)."""
    constants = {f"input{i}": call.constant(i) for i in range(len(call.inputs))}
    attrs = {name: call.attr(name) for name in call.attrs}
    params = {name: array for name, array in constants.items() if array is not None}
    node = call.node(f"{call.proto.domain}::{call.proto.op_type}", attrs, params)
    return replace(node, outputs=tuple(call.outputs))
