"""An fx graph of torch's operators -> a list of ONNX nodes and the constants that they read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import helper

from ..errors import UnsupportedError

TYPES = {
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float64: onnx.TensorProto.DOUBLE,
    torch.int64: onnx.TensorProto.INT64,
    torch.uint8: onnx.TensorProto.INT64,  # winners among inputs: ONNX computes little with bytes
    torch.int32: onnx.TensorProto.INT64,
    torch.bool: onnx.TensorProto.BOOL,
}
"""How ONNX holds a dtype of torch."""

CREATING = frozenset(("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"))
"""Operators whose result depends on nothing of their argument but its shape."""


READING_WINNERS = frozenset(("max_pool2d_route", "clone", "detach"))
"""Operators that may read the winners of a max pool, whose numbers are not those of the package."""


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the network's input."""

    name: str
    shape: tuple[int, ...]
    """As recorded; only of the first axis does it depend on the number of images."""
    dtype: torch.dtype


@dataclass(frozen=True)
class Winners(Value):
    """Winners of a max pool: `name` holds ONNX's indices into the whole input."""

    plane: int = 0
    """Pixels of an input plane."""


Operand: TypeAlias = "Value | torch.Tensor | str"
Result: TypeAlias = "str | Value | torch.Tensor | tuple[Any, ...]"
Convert: TypeAlias = "Callable[..., Result]"
"""(lowering, the recorded node's results, *arguments, **keywords) -> names or values of the results."""


@dataclass(frozen=True)
class Made:
    """What the recorded operator gave: its shape and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Lowering:
    """Writes ONNX nodes.

    Operators whose arguments do not depend on the input are computed here and now; of the others `table` says how.
    """

    table: Mapping[str, Convert]
    first_used: Mapping[str, str]
    """By operator: the layer that used it first, for refusals."""
    derived: Mapping[tuple[Any, ...], tuple[str, torch.Tensor]] = field(default_factory=dict)
    """By `key_of` of a tensor: the ONNX operators by which it is computed from a weight, so that no file holds both."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    _names: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _alive: list[torch.Tensor] = field(default_factory=list)

    @property
    def outline(self) -> tuple[Any, ...]:
        """What two graphs have in common that compute the same for their numbers of images."""
        integers = {name: array.tolist() for name, array in self.constants.items() if array.dtype == np.int64}
        return self.nodes, integers, {name: array.shape for name, array in self.constants.items()}

    def run(self, recorded: torch.fx.GraphModule, inputs: Sequence[str]) -> tuple[Any, ...]:
        """The results of the recorded call, for inputs of these names."""
        env: dict[torch.fx.Node, Any] = {}
        names = iter(inputs)
        for node in recorded.graph.nodes:
            if node.op == "placeholder":
                made = _made(node)
                env[node] = Value(next(names), made.shape, made.dtype)
            elif node.op == "get_attr":
                env[node] = getattr(recorded, node.target)
            elif node.op == "output":
                return tuple(torch.fx.map_arg(node.args[0], env.__getitem__))
            else:
                env[node] = self._call(node, *torch.fx.map_arg((node.args, node.kwargs), env.__getitem__))
        raise AssertionError("a graph without an output")

    def _call(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target: Any = node.target
        if target is operator.getitem:
            return args[0][args[1]]
        operands = list(_operands((*args, *kwargs.values())))
        if not any(isinstance(operand, Value) for operand in operands):
            return target(*args, **kwargs)
        name = target.overloadpacket.__name__
        if name in CREATING:
            alike = [torch.empty(arg.shape, dtype=arg.dtype) if isinstance(arg, Value) else arg for arg in args]
            return target(*alike, **kwargs)
        convert = self.table.get(name)
        misused = name not in READING_WINNERS and any(isinstance(operand, Winners) for operand in operands)
        if convert is None or misused:
            where = self.first_used.get(name, self.first_used.get(f"{name}_", "the network"))
            what = "places of maxima in numbers" if misused else f"the operator '{target}'"
            raise UnsupportedError(f"{where}: {what} has no form in the ONNX export")
        made = _made(node)
        result = convert(self, made, *args, **kwargs)
        if isinstance(result, str):
            return Value(result, made.shape, made.dtype)
        return result

    def emit(self, op: str, *operands: Operand | None, outputs: Any = 1, **attributes: Any) -> str:
        """Writes a node and gives the name of its first output; the others are NAME_1, NAME_2 ..."""
        name = f"{op}_{len(self.nodes)}"
        names = ["" if operand is None else self.name(operand) for operand in operands]
        results = [name, *(f"{name}_{place}" for place in range(1, outputs))]
        self.nodes.append(helper.make_node(op, names, results, name, **attributes))
        return name

    def name(self, operand: Operand) -> str:
        """By which a node reads it; a tensor becomes a constant of the model."""
        if isinstance(operand, torch.Tensor):
            return self._constant(operand)
        return operand.name if isinstance(operand, Value) else operand

    def ints(self, *numbers: int) -> torch.Tensor:
        """A list of numbers: a shape, axes, places."""
        return torch.tensor(numbers, dtype=torch.int64)

    def _constant(self, tensor: torch.Tensor) -> str:
        key = key_of(tensor)
        small = tensor.numel() <= 16
        if small:  # equal ones are one
            key = (str(tensor.dtype), tuple(tensor.shape), *tensor.flatten().tolist())
        if key not in self._names:
            self._alive.append(tensor)  # its address is its name
            self._names[key] = self._new_constant(key, tensor)
        return self._names[key]

    def _new_constant(self, key: tuple[Any, ...], tensor: torch.Tensor) -> str:
        if key in self.derived:
            ops, source = self.derived[key]
            name = self._constant(source)
            for op in ops.split():
                name = self.emit(op, name)
            return name
        if tensor.dim() == 2 and not tensor.is_contiguous() and tensor.t().is_contiguous():
            return self.emit("Transpose", tensor.t(), perm=[1, 0])
        name = f"constant_{len(self.constants)}"
        array = tensor.detach().contiguous().numpy()
        self.constants[name] = array.astype(helper.tensor_dtype_to_np_dtype(TYPES[tensor.dtype]), copy=False)
        return name


def key_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for two views of the same numbers in the same order."""
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype)


def _operands(values: Sequence[Any]) -> Any:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _operands(value)
        else:
            yield value


def _made(node: torch.fx.Node) -> Made:
    result = node.meta["val"]
    first = result[0] if isinstance(result, (list, tuple)) else result
    return Made(tuple(first.shape), first.dtype)
