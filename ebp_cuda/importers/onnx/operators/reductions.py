"""Converters of what takes many numbers of an axis together."""

from __future__ import annotations

import numpy as np

from ....graph import Node
from ..call import Call, converter
from ..shaping import last

_KINDS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceL1": "asum", "ReduceL2": "sumsq", "ReduceSumSquare": "sumsq",
    "ReduceLogSum": "sum",
}  # fmt: skip
_OPERATIONS = {"ReduceLogSumExp": "logsumexp", "ReduceProd": "product"}
_AFTERWARDS = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}
_OF_ONE = {"ReduceL1": "abs", "ReduceL2": "abs", "ReduceSumSquare": "square", "ReduceLogSum": "log"}


def _axes(call: Call) -> tuple[int, ...] | None:
    """The axes to reduce, counted from the front; None where there are none to reduce."""
    axes = call.numbers("axes", 1)
    if not axes:
        return None if call.flag("noop_with_empty_axes") else tuple(range(call.rank()))
    call.ignore_attrs("noop_with_empty_axes")
    return tuple(sorted({call.axis(axis) for axis in axes}))


@converter(*_KINDS, *_OPERATIONS)
def reduction(call: Call) -> list[Node]:
    """Over any axes; where images are added up, relevance cannot pass."""
    kind, keep, axes = call.op_type, call.flag("keepdims", 1), _axes(call)
    if axes is None:
        return [_of_one_element(call)]
    if kind == "ReduceMean" and 0 not in axes and min(axes) >= 0:
        return [call.node("mean", {"axes": axes, "keepdims": keep}, inputs=call.x)]
    if kind in _OPERATIONS:
        steps = [call.step(_OPERATIONS[kind], call.x, "sum", axes=axes)]
    else:
        steps = [call.step("reduce", call.x, "sum", kind=_KINDS[kind], axes=axes)]
    if kind in _AFTERWARDS:
        steps.append(call.step(_AFTERWARDS[kind], steps[-1].outputs, "of_sum"))
    op = "unsqueeze" if keep else "identity"
    return [*steps, call.node(op, {"axes": axes} if keep else {}, inputs=steps[-1].outputs)]


def _of_one_element(call: Call) -> Node:
    """What is left of a reduction over no axis."""
    op = _OF_ONE.get(call.op_type, "identity")
    call.flag("keepdims")
    return call.node("power", {"power": 2.0}, inputs=call.x) if op == "square" else call.node(op, inputs=call.x)


@converter("ReduceMax", "ReduceMin")
def largest(call: Call) -> list[Node]:
    """Over any axes; ReduceMin as the largest of the negatives."""
    keep, axes = call.flag("keepdims", 1), _axes(call)
    if axes is None:
        return [call.node("identity", inputs=call.x)]
    minus = {"scale": np.asarray(-1, np.float32)}
    steps: list[Node] = []
    if call.op_type == "ReduceMin":
        steps.append(call.step("affine", call.x, "minus", minus))
    for axis in axes:
        x = last(steps, call.x)
        steps.append(call.step("arg_max", x, f"largest{axis}", axis=axis, k=1, gives="values"))
    if call.op_type == "ReduceMin":
        steps.append(call.step("affine", last(steps, call.x), "smallest", minus))
    if keep or not axes:
        return [*steps, call.node("identity", inputs=last(steps, call.x))]
    return [*steps, call.node("squeeze", {"axes": axes}, inputs=last(steps, call.x))]


@converter("ArgMax", "ArgMin")
def place_of_largest(call: Call) -> list[Node]:
    """Of equal numbers the first, where the axis has a fixed length, or the last."""
    axis, keep, to_last = call.axis(call.attr("axis", 0)), call.flag("keepdims", 1), call.flag("select_last_index")
    steps: list[Node] = []
    if call.op_type == "ArgMin":
        steps.append(call.step("affine", call.x, "minus", {"scale": np.asarray(-1, np.float32)}))
    length = 0 if to_last else call.length(axis)
    if not to_last:  # arg_max takes the last of equal numbers
        backwards = call.every_place(axis)[::-1]
        steps.append(call.step("select", last(steps, call.x), "backwards", axis=axis, indices=backwards))
    steps.append(call.step("arg_max", last(steps, call.x), "place", axis=axis, k=1, gives="indices"))
    if not to_last:
        counted = {"scale": np.asarray(-1, np.float32), "shift": np.asarray(length - 1, np.float32)}
        steps.append(call.step("affine", steps[-1].outputs, "counted", counted))
    op = "identity" if keep else "squeeze"
    return [*steps, call.node(op, {} if keep else {"axes": (axis,)}, inputs=steps[-1].outputs)]


@converter("TopK", since=10)
def top_k(call: Call) -> list[Node]:
    """A constant k; places where the axis has a fixed length."""
    axis, k = call.axis(call.attr("axis", -1)), int(call.required(1, "k").reshape(()))
    smallest = not call.flag("largest", 1)
    call.ignore_attrs("sorted")  # they always are
    minus, x = {"scale": np.asarray(-1, np.float32)}, call.x
    steps: list[Node] = []
    length = call.length(axis)
    if smallest:
        steps.append(call.step("affine", x, "minus", minus))
    backwards = call.every_place(axis)[::-1]  # arg_max takes the last of equal numbers
    steps.append(call.step("select", last(steps, x), "backwards", axis=axis, indices=backwards))
    x = last(steps, x)
    if smallest:
        steps.append(call.step("arg_max", x, "values", axis=axis, k=k, gives="values"))
        nodes = [call.node("affine", params=minus, inputs=steps[-1].outputs)]
    else:
        nodes = [call.node("arg_max", {"axis": axis, "k": k, "gives": "values"}, inputs=x)]
    if call.is_asked(1):
        counted = {"scale": np.asarray(-1, np.float32), "shift": np.asarray(length - 1, np.float32)}
        places = call.step("arg_max", x, "places", axis=axis, k=k, gives="indices")
        nodes += [places, call.other(1, "affine", places.outputs, counted)]
    return [*steps, *nodes]


@converter("CumSum", since=11)
def cumulative_sum(call: Call) -> Node:
    """Along an axis of fixed length."""
    axis = call.axis(int(call.required(1, "axis").reshape(())))
    length = call.length(axis)
    call.charge(float(length) ** 2, 12)  # the numbers, and what numpy makes on the way
    weight = np.tri(length, k=-1 if call.flag("exclusive") else 0, dtype=np.float32)
    weight = np.ascontiguousarray(weight[::-1, ::-1]) if call.flag("reverse") else weight
    return call.node("weighted_sum", {"axis": axis}, {"weight": weight}, inputs=call.x)
