"""One ONNX node as a converter sees it, and the table that the converters enter themselves in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
import torch

from ...errors import ModelError, UnsupportedError
from ...graph import Node
from .constants import Constants
from .sizes import Shapes, Sizes

CAFFE_DOMAIN = "ebp_cuda.caffe"
NEWEST_OPSET = 28
"""The newest opset of the default domain that the converters were compared with."""


PYTHON_INT = 40
"""Bytes of an int and its place in a tuple."""


class Model(Protocol):
    """What a call needs to know of the model that it stands in."""

    origin: str
    types: dict[str, str]
    """Caffe layer types by node name, where the model came from Caffe."""
    constants: Constants
    sizes: Sizes
    readers: dict[str, set[str]]
    """By value, who reads it: "domain::OpType" of nodes, "" where the network puts it out."""
    integers: set[str]
    """Activations that hold integers or booleans."""
    example_batch: int | None
    """The number of images that the file declares, where any number is taken all the same."""


class Call:
    """One ONNX node as its converter sees it: inputs, attributes and constants by name.

    It notes what the converter looks at: an attribute or an input that it never asked for is one that it does not know,
    and the reader refuses the node (`unread`).
    """

    def __init__(self, model: Model, proto: onnx.NodeProto) -> None:
        self.model, self.proto = model, proto
        self.name = proto.name or proto.output[0]
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.op_type, self.opset = proto.op_type, model.sizes.opset
        self._read: set[str] = set()
        self._constants_read: set[int] = set()
        self._ignored_inputs: set[str] = set()
        try:
            self.attrs = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}
        except ValueError as error:
            raise ModelError(f"{self.where}: an attribute has no value of its own: {error}") from None

    @property
    def where(self) -> str:
        opset = "" if self.proto.domain else f", opset {self.opset}"
        return f"{self.model.origin}: node '{self.name}' ({self.op_type}{opset})"

    def refusal(self, what: str, wanted: str = "") -> UnsupportedError:
        """The error for something that the operator may have and this package does not take."""
        return UnsupportedError(f"{self.where}: {what}{f'; wanted {wanted}' if wanted else ''}")

    # attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, `default` where it is absent; text as a string, a list as a tuple."""
        self._read.add(name)
        value = self.attrs.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, list) else value

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is 0 or 1."""
        return bool(self.attr(name, default))

    def no_attr(self, name: str, allowed: Any, wanted: str) -> None:
        """Refuses every value of an attribute but one, which is its default."""
        value = self.attr(name, allowed)
        if value != allowed:
            raise self.refusal(f"attribute {name} = {value!r}", wanted)

    def ignore_attrs(self, *names: str) -> None:
        """For attributes that do not change the result."""
        self._read.update(names)

    def unread(self, read: Collection[str]) -> str | None:
        """What the converter never asked for: an attribute, a constant input, or one that its nodes do not read.

        Args:
            read: values that the call's nodes read.
        """
        for name in self.attrs:
            if name not in self._read and name != "consumed_inputs":  # of opset 1, about memory
                return f"attribute {name} is not known to this importer"
        for index, name in enumerate(self.inputs):
            if name in self.model.constants and index not in self._constants_read:
                return f"a constant as input {index} is not known to this importer"
            computed = index not in self._constants_read and name in self.model.sizes.probes[0].values
            if computed:
                return f"its input {index} follows from the size of the network's input; wanted a constant"
        for name in self.activations:
            if name not in read and name not in self._ignored_inputs:
                return f"its input '{name}' is computed by the graph; wanted a constant"
        return None

    # inputs

    def given(self, index: int) -> bool:
        """Whether input `index` is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def constant(self, index: int) -> np.ndarray | None:
        """Input `index` as an array if it is a constant, else None (also where the input is absent)."""
        self._constants_read.add(index)
        return self.model.constants.get(self.inputs[index]) if self.given(index) else None

    def required(self, index: int, what: str) -> np.ndarray:
        """Input `index`, which must be a constant."""
        value = self.constant(index)
        if value is None:
            raise self.refusal(f"its {what} is computed by the graph", "a constant")
        return value

    def optional(self, index: int, what: str) -> np.ndarray | None:
        """Like `required`, but None where the input is absent."""
        return self.required(index, what) if self.given(index) else None

    def ignore_input(self, index: int) -> None:
        """For an input that only gives a type or a shape."""
        self._constants_read.add(index)
        self._ignored_inputs.update(self.inputs[index : index + 1])

    def numbers(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that are an attribute in older opsets and input `index` in newer ones; None where there are none."""
        value = self.attr(name)
        if value is None:
            value = self.optional(index, name)
        return None if value is None else tuple(int(n) for n in np.asarray(value).reshape(-1))

    @property
    def activations(self) -> list[str]:
        """The inputs that are no constants and no sizes."""
        known = self.model.constants, self.model.sizes.probes[0].values
        return [name for name in self.inputs if name and not any(name in values for values in known)]

    @property
    def x(self) -> str:
        """Input 0, which must be an activation."""
        self.constant(0)
        if self.inputs[0] not in self.activations:
            raise self.refusal("its first input does not depend on the image", "an activation")
        return self.inputs[0]

    # shapes

    def shapes(self, index: int = 0) -> Shapes | None:
        """The shape of input `index` under each assumption (sizes.py), or None where it cannot be told."""
        name = self.inputs[index]
        if name in self.model.constants:
            return (self.model.constants[name].shape,) * len(self.model.sizes.probes)
        return self.model.sizes.shapes(name)

    def known_shapes(self, index: int = 0) -> Shapes:
        """`shapes`, refused where they cannot be told."""
        shapes = self.shapes(index)
        if shapes is None:
            reason = self.model.sizes.reasons.get(self.inputs[index])
            raise self.refusal(f"the shape of its input {index} cannot be told{f' ({reason})' if reason else ''}")
        return shapes

    def rank(self, index: int = 0) -> int:
        """Number of axes of input `index`."""
        return len(self.known_shapes(index)[0])

    def length(self, axis: int, index: int = 0) -> int:
        """Length of an axis of input `index` that is the same for every input of the network."""
        lengths = {shape[axis] for shape in self.known_shapes(index)}
        if len(lengths) != 1:
            raise self.refusal(f"axis {axis} of its input may have any length", "a fixed one")
        return lengths.pop()

    def axis(self, value: int, rank: int | None = None) -> int:
        """An axis of input 0 counted from the front; where the rank cannot be told, as it was given."""
        if rank is None and value >= 0:
            return value
        if rank is None:
            shapes = self.shapes()
            if shapes is None:
                return value
            rank = len(shapes[0])
        if not -rank <= value < max(rank, 1):
            raise ModelError(f"{self.where}: axis {value} of {rank} axes")
        return value % rank if rank else 0

    def lengths(self, index: int, what: str) -> list[tuple[int, ...]]:
        """Input `index`, a list of sizes: each as what it is under every assumption."""
        constant = self.constant(index)
        if constant is not None:
            return [(int(n),) * len(self.model.sizes.probes) for n in constant.reshape(-1)]
        sizes = self.model.sizes.elements(self.inputs[index]) if self.given(index) else None
        if sizes is None:
            raise self.refusal(f"its {what} is computed by the graph", "a constant")
        return [tuple(int(n) for n in pair) for pair in sizes]

    # results

    def charge(self, count: float, itemsize: int = 4) -> None:
        """Enters what the converter is about to make: as many numbers as the file says, and it may say anything.

        Args:
            count: numbers.
            itemsize: bytes of each while they are made; PYTHON_INT for a tuple of ints.

        Raises:
            UnsupportedError: where the import would make too many (account.py).
        """
        self.model.constants.account.charge(count, itemsize, self.where)

    def every_place(self, axis: int) -> tuple[int, ...]:
        """0, 1, ... along an axis of fixed length."""
        length = self.length(axis)
        self.charge(length, PYTHON_INT)
        return tuple(range(length))

    def is_asked(self, output: int) -> bool:
        """Whether somebody reads output `output`."""
        return bool(self.readers(output))

    def readers(self, output: int) -> Collection[str]:
        """Who reads output `output`: "domain::OpType" of nodes, "" for the network's user."""
        return self.model.readers.get(self.outputs[output], ()) if output < len(self.outputs) else ()

    def becomes(self, array: np.ndarray) -> None:
        """Makes the first output a constant."""
        self.model.constants.account.charge(array.size, array.itemsize, self.where)
        self.model.constants[self.outputs[0]] = array

    def step(
        self,
        op: str,
        inputs: str | Sequence[str],
        suffix: str,
        params: Mapping[str, np.ndarray] | None = None,
        **attrs: Any,
    ) -> Node:
        """A node on the way to this call's output, with a name and a value of its own."""
        name = f"{self.name}.{suffix}"
        read = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        return Node(name, op, read, (name,), attrs, self._tensors(params), self.op_type)

    def node(
        self,
        op: str,
        attrs: Mapping[str, Any] | None = None,
        params: Mapping[str, np.ndarray] | None = None,
        *,
        inputs: str | Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> Node:
        """A node of the vocabulary that reads this call's activations and writes its first output, or others."""
        source = self.model.types.get(self.name, self.op_type)
        read = self.activations if inputs is None else [inputs] if isinstance(inputs, str) else inputs
        written = tuple(outputs or self.outputs[:1])
        return Node(self.name, op, tuple(read), written, dict(attrs or {}), self._tensors(params), source)

    def other(
        self,
        output: int,
        op: str,
        inputs: str | Sequence[str],
        params: Mapping[str, np.ndarray] | None = None,
        **attrs: Any,
    ) -> Node:
        """A node that writes output `output` besides the one that bears this call's name."""
        read = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        written = (self.outputs[output],)
        return Node(f"{self.name}.{output}", op, read, written, attrs, self._tensors(params), self.op_type)

    def _tensors(self, params: Mapping[str, np.ndarray] | None) -> dict[str, torch.Tensor]:
        return {name: self.model.constants.tensor(array, self.where) for name, array in (params or {}).items()}


Convert: TypeAlias = "Callable[[Call], Node | list[Node]]"


@dataclass(frozen=True)
class Converter:
    """How one operator is read, in a range of opsets."""

    operator: str
    since: int
    until: int
    """The newest opset that it reads; NEWEST_OPSET where nothing newer has changed the operator."""
    convert: Convert


CONVERTERS: dict[str, list[Converter]] = {}
"""By operator ("Conv"), or "caffe." and a function that the Caffe importer writes ("caffe.Scale")."""


def converter(*names: str, since: int = 1, until: int = NEWEST_OPSET) -> Callable[[Convert], Convert]:
    """Decorator that enters a converter for ONNX operators ("Conv") or Caffe functions ("caffe.Scale").

    Args:
        names: the operators.
        since: the oldest opset whose operator it reads.
        until: the newest one.
    """

    def enter(function: Convert) -> Convert:
        for name in names:
            CONVERTERS.setdefault(name, []).append(Converter(name, since, until, function))
        return function

    return enter


def own_layer(call: Call) -> Node:
    """A node of a user's domain, named "domain::OpType" (see rules.register_operation)."""
    constants = {f"input{i}": call.constant(i) for i in range(len(call.inputs))}
    values = {name: call.attrs[name] for name in call.attrs}
    call.ignore_attrs(*values)
    attrs = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
    params = {name: array for name, array in constants.items() if array is not None}
    return call.node(f"{call.proto.domain}::{call.op_type}", attrs, params, outputs=call.outputs)
