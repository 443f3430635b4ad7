"""One ONNX node as a converter sees it, and the table that the converters enter themselves in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import torch

from ...errors import UnsupportedError
from ...graph import Node
from .sizes import Sizes


class Model(Protocol):
    """What a call needs to know of the model that it stands in."""

    origin: str
    types: dict[str, str]
    """Caffe layer types by node name, where the model came from Caffe."""
    constants: dict[str, np.ndarray]
    sizes: Sizes


class Call:
    """One ONNX node as its converter sees it: inputs, attributes and constants by name."""

    def __init__(self, model: Model, proto: onnx.NodeProto) -> None:
        self.model, self.proto = model, proto
        self.name = proto.name or proto.output[0]
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.attrs = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, `default` where it is absent; text as a string, a list as a tuple."""
        value = self.attrs.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, list) else value

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

    def shapes(self, index: int) -> tuple[tuple[int, ...], ...] | None:
        """The shape of input `index` for two sizes of the network's inputs, or None where it cannot be told."""
        constant = self.constant(index)
        return (constant.shape,) * 2 if constant is not None else self.model.sizes.shapes(self.inputs[index])

    def rank(self, index: int = 0) -> int:
        """Number of axes of input `index`."""
        shapes = self.shapes(index)
        if shapes is None:
            reason = f" ({self.model.sizes.broken})" if self.model.sizes.broken else ""
            raise UnsupportedError(f"{self.where}: the shape of its input {index} cannot be told{reason}")
        return len(shapes[0])

    def lengths(self, index: int, what: str) -> list[tuple[int, ...]]:
        """Input `index`, a list of sizes: each as what it is for two sizes of the network's inputs."""
        constant = self.constant(index)
        if constant is not None:
            return [(int(n),) * 2 for n in constant.reshape(-1)]
        found = self.model.sizes.elements(self.inputs[index]) if index < len(self.inputs) else None
        if found is None:
            raise UnsupportedError(f"{self.where}: its {what} is computed by the graph; wanted a constant")
        return [tuple(int(n) for n in pair) for pair in found]

    @property
    def where(self) -> str:
        return f"{self.model.origin}: node '{self.name}' ({self.proto.op_type})"

    @property
    def activations(self) -> list[str]:
        known = self.model.constants, self.model.sizes.probes[0].values
        return [name for name in self.inputs if name and not any(name in held for held in known)]

    def step(
        self, op: str, inputs: Sequence[str], suffix: str, params: dict[str, np.ndarray] | None = None, **attrs: Any
    ) -> Node:
        """A node on the way to this call's output, with a name and a value of its own."""
        name = f"{self.name}.{suffix}"
        tensors = {key: _tensor(array) for key, array in (params or {}).items()}
        return Node(name, op, tuple(inputs), (name,), attrs, tensors, self.proto.op_type)

    def node(
        self,
        op: str,
        attrs: dict[str, Any] | None = None,
        params: dict[str, np.ndarray] | None = None,
        *,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> Node:
        """A node of the vocabulary that reads this call's activations and writes its first output, or others."""
        source = self.model.types.get(self.name, self.proto.op_type)
        tensors = {name: _tensor(array) for name, array in (params or {}).items()}
        read = tuple(self.activations if inputs is None else inputs)
        return Node(self.name, op, read, tuple(outputs or self.outputs[:1]), attrs or {}, tensors, source)


def _tensor(array: np.ndarray) -> torch.Tensor:
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


Converter = Callable[[Call], "Node | list[Node]"]
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


def axes_of(call: Call) -> Sequence[int] | None:
    """The axes of a Reduce, Squeeze or Pad node: an attribute (older opsets) or an input; None if absent."""
    given = call.attr("axes")
    if given is None:
        given = call.optional(3 if call.proto.op_type == "Pad" else 1, "axes")
    return None if given is None else [int(n) for n in given]


def own_layer(call: Call) -> Node:
    """A node of a user's domain, named "domain::OpType" (see rules.register_operation)."""
    constants = {f"input{i}": call.constant(i) for i in range(len(call.inputs))}
    attrs = {name: value.decode() if isinstance(value, bytes) else value for name, value in call.attrs.items()}
    params = {name: array for name, array in constants.items() if array is not None}
    return call.node(f"{call.proto.domain}::{call.proto.op_type}", attrs, params, outputs=call.outputs)
