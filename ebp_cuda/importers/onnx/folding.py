"""What an ONNX node computes from constants: which operators may be computed at import, and how much that makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ...errors import UnsupportedError
from .account import Account

FOLDED = frozenset(
    (
        "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "CumSum",
        "DequantizeLinear", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather",
        "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log",
        "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal",
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterND", "Shape",
        "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
        "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
    )
)  # fmt: skip
"""Operators of the default domain that may be computed at import."""

_WITHOUT_INPUTS = frozenset(("Range", "ConstantOfShape"))
_OLD_BROADCAST = frozenset(("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"))
_WIDEST = 8
"""Bytes of a number while the reference implementation computes, whatever comes out."""


def can_fold(item: onnx.NodeProto, opset: int) -> bool:
    """Whether the reference implementation computes this node as its opset says."""
    if item.op_type not in FOLDED or item.domain not in ("", "ai.onnx"):
        return False
    old = opset < 7 and item.op_type in _OLD_BROADCAST  # then an attribute says how operands broadcast
    return not (old and any(attribute.name == "broadcast" for attribute in item.attribute))


def evaluate(
    item: onnx.NodeProto,
    feeds: Mapping[str, np.ndarray],
    opsets: Sequence[onnx.OperatorSetIdProto],
    account: Account,
) -> list[np.ndarray]:
    """The outputs of a node, in order; an empty array for one without a name.

    Raises:
        UnsupportedError: where the result would be text, or too large for the account.
    """
    where = f"node '{item.name or item.output[0]}' ({item.op_type})"
    if item.op_type == "Cast" and _attribute(item, "to") == onnx.TensorProto.STRING:
        raise UnsupportedError(f"{where}: attribute to: text; wanted numbers")
    if any(array.dtype.kind not in "fiubV" for array in feeds.values()):
        raise UnsupportedError(f"{where}: its input is text; wanted numbers")
    if item.op_type == "ConstantOfShape":
        return [_filled(item, feeds, account, where)]
    count = elements(item, feeds)
    largest = max((array.size for array in feeds.values()), default=0)
    account.charge(count, _WIDEST if count > largest else 4, where)
    names = [name for name in item.output if name]
    graph = helper.make_graph(
        [item],
        "constant",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=name) for name in names],
    )
    alone = helper.make_model(graph, opset_imports=opsets)  # a node by itself would be read as of today
    outputs = dict(zip(names, ReferenceEvaluator(alone).run(None, dict(feeds)), strict=True))
    return [np.asarray(outputs.get(name, ())) for name in item.output]


def _filled(item: onnx.NodeProto, feeds: Mapping[str, np.ndarray], account: Account, where: str) -> np.ndarray:
    """A constant of a shape: the numbers are made once, in their own width."""
    value = _attribute(item, "value")
    number = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value).reshape(-1)
    shape = [int(n) for n in next(iter(feeds.values()))]
    if number.size != 1 or any(n < 0 for n in shape):
        raise ValueError(f"shape {shape} filled with {number.size} numbers")
    account.charge(float(prod(shape)), number.itemsize, where)
    return np.full(shape, number[0], number.dtype)


def elements(item: onnx.NodeProto, feeds: Mapping[str, np.ndarray]) -> float:
    """At most about how many numbers the node makes."""
    arrays = [feeds[name] for name in item.input if name in feeds]
    match item.op_type:
        case "Range":
            start, limit, delta = (float(array) for array in arrays)
            return max((limit - start) / delta, 0) if delta else float("inf")
        case "Expand":
            return _product(arrays[1]) if arrays[1].size > arrays[0].ndim else arrays[0].size * _product(arrays[1])
        case "Tile":
            return arrays[0].size * (_product(arrays[1]) if len(arrays) < 3 else float(np.abs(arrays[1])))
        case "Concat":
            return float(sum(array.size for array in arrays))
        case "Gather":
            axis = _attribute(item, "axis") or 0
            rows = max(arrays[0].shape[axis] if arrays[0].ndim else 1, 1)
            return arrays[0].size / rows * arrays[1].size
        case "GatherND":
            return float(arrays[0].size * arrays[1].size)
        case "GatherElements" | "Trilu":
            return float(max(array.size for array in arrays))
        case "Pad":
            pads = arrays[1] if len(arrays) > 1 else np.asarray(_attribute(item, "pads") or 0)
            return float(np.prod([n + float(np.abs(pads).sum()) for n in arrays[0].shape]))
        case "MatMul":
            inner = max(arrays[0].shape[-1] if arrays[0].ndim else 1, 1)
            return arrays[0].size / inner * arrays[1].size / inner
    if not arrays:
        return 1.0
    try:
        return float(prod(np.broadcast_shapes(*(array.shape for array in arrays))))
    except ValueError:
        return float(max(array.size for array in arrays))  # nothing that broadcasts: it moves or reduces the first


def _product(array: np.ndarray) -> float:
    return float(np.prod(np.maximum(np.abs(array.astype(np.float64)), 1)))


def _attribute(item: onnx.NodeProto, name: str) -> Any:
    attribute = next((attribute for attribute in item.attribute if attribute.name == name), None)
    return None if attribute is None else helper.get_attribute_value(attribute)
