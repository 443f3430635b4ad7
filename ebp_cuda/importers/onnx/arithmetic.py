"""Converters of arithmetic between values, and of sums and maxima over axes."""

from __future__ import annotations

from math import prod

import numpy as np

from ...errors import UnsupportedError
from ...graph import Node
from .call import Call, axes_of, converter

_OF_TWO = {"Add": "sum", "Sum": "sum", "Sub": "sum", "Mul": "mul", "Div": "mul", "Max": "max"}


@converter("Add", "Sub", "Mul", "Div", "Sum", "Max")
def arithmetic(call: Call) -> Node | list[Node]:
    kind = call.proto.op_type
    given = [call.constant(index) for index in range(len(call.inputs))]
    if not any(array is not None for array in given):
        return _of_activations(call)
    if len(given) != 2 or kind in ("Max", "Sum"):
        raise UnsupportedError(f"{call.where}: {kind} with a constant; wanted x op constant")
    first = given[0] is not None
    constant = np.asarray(given[0] if first else given[1], np.float32)
    if kind == "Div" and first:
        inverse = call.step("power", call.activations, "reciprocal", power=-1.0, scale=1.0, shift=0.0)
        return [inverse, _affine(call, inverse.outputs[0], constant, scale=constant)]
    (x,) = call.activations
    if kind in ("Mul", "Div"):
        return _affine(call, x, constant, scale=constant if kind == "Mul" else 1 / constant)
    if kind == "Sub" and first:
        return _affine(call, x, constant, scale=np.float32(-1), shift=constant)
    return _affine(call, x, constant, shift=constant if kind == "Add" else -constant)


def _affine(call: Call, x: str, constant: np.ndarray, **params: np.ndarray) -> Node:
    shapes = call.model.sizes.shapes(x) if constant.ndim > 1 and constant.shape[0] != 1 else None
    if shapes and constant.ndim >= len(shapes[0]):
        raise UnsupportedError(f"{call.where}: a constant of shape {list(constant.shape)} for {list(shapes[0])}")
    return call.node("affine", params=params, inputs=(x,))


def _of_activations(call: Call) -> Node | list[Node]:
    kind, count = call.proto.op_type, len(call.inputs)
    if count == 1:
        return call.node("identity")
    steps: list[Node] = []
    values = list(call.activations)
    if kind == "Div":
        steps.append(call.step("power", values[1:], "reciprocal", power=-1.0, scale=1.0, shift=0.0))
        values[1] = steps[0].outputs[0]
    op = _OF_TWO[kind]
    values, more = _of_one_shape(call, op, values)
    attrs = {"coefficients": (1.0, -1.0)} if kind == "Sub" else {}
    return [*steps, *more, call.node(op, attrs, inputs=tuple(values))]


def _of_one_shape(call: Call, op: str, values: list[str]) -> tuple[list[str], list[Node]]:
    """The operands, repeated to the size of the largest; a product needs that for none."""
    if call.model.types:
        return values, []  # Caffe's layers say themselves what they repeat, and its inputs need no batch
    shapes = [call.shapes(index) for index in range(len(values))]
    if any(shape is None for shape in shapes) or len({shape[0] for shape in shapes if shape}) == 1:
        return values, []
    firsts = [shape[0] for shape in shapes if shape]
    wide = np.broadcast_shapes(*firsts)
    whole = next((i for i, shape in enumerate(firsts) if shape == wide), None)
    if whole is None or any(len(shape) != len(wide) or shape[0] != wide[0] for shape in firsts):
        raise UnsupportedError(f"{call.where}: shapes {[list(shape) for shape in firsts]}; wanted one of the full size")
    if op == "mul":
        return values, []
    steps = [
        call.step("expand", (value, values[whole]), f"expand{i}")
        for i, (value, shape) in enumerate(zip(values, firsts, strict=True))
        if shape != wide
    ]
    wider = {step.inputs[0]: step.outputs[0] for step in steps}
    return [wider.get(value, value) for value in values], steps


@converter("Pow")
def power(call: Call) -> Node:
    exponent = call.required(1, "exponent")
    if exponent.size != 1:
        raise UnsupportedError(f"{call.where}: {exponent.size} exponents; wanted one")
    return call.node("power", {"power": float(exponent.reshape(())), "scale": 1.0, "shift": 0.0})


@converter("Neg", "Reciprocal")
def of_one(call: Call) -> Node:
    if call.proto.op_type == "Neg":
        return call.node("affine", params={"scale": np.asarray(-1, np.float32)})
    return call.node("power", {"power": -1.0, "scale": 1.0, "shift": 0.0})


_REDUCED = {"ReduceSum": "sum", "ReduceL1": "asum", "ReduceL2": "sumsq", "ReduceSumSquare": "sumsq"}


@converter("ReduceMean", "ReduceMax", *_REDUCED)
def reduction(call: Call) -> list[Node]:
    kind, keep, axes = call.proto.op_type, bool(call.attr("keepdims", 1)), axes_of(call)
    if axes is None and call.attr("noop_with_empty_axes", 0):
        return [call.node("identity", inputs=(call.inputs[0],))]
    if axes is not None and kind == "ReduceMean":
        return [call.node("mean", {"axes": tuple(axes), "keepdims": keep}, inputs=(call.inputs[0],))]
    rank = call.rank()
    axes = sorted(axis % rank for axis in (range(rank) if axes is None else axes))
    if 0 in axes:
        raise UnsupportedError(f"{call.where}: reduces over the images of a batch")
    if kind == "ReduceMax":
        return _largest(call, axes, keep)
    if kind == "ReduceSum":
        mean = call.step("mean", call.inputs[:1], "mean", axes=tuple(axes), keepdims=keep)
        count = prod((call.shapes(0) or ((),))[0][axis] for axis in axes)
        if any(shape[axis] != (call.shapes(0) or ((),))[0][axis] for axis in axes for shape in call.shapes(0) or ()):
            raise UnsupportedError(f"{call.where}: sums over an axis of any size")
        scale = {"scale": np.asarray(count, np.float32)}
        return [mean, call.node("affine", params=scale, inputs=mean.outputs)]
    steps = [call.step("reduce", call.inputs[:1], "sum", kind=_REDUCED[kind], axes=tuple(axes), coefficient=1.0)]
    if kind == "ReduceL2":
        steps.append(call.step("sqrt", steps[-1].outputs, "root"))
    op = "unsqueeze" if keep else "identity"
    return [*steps, call.node(op, {"axes": tuple(axes)} if keep else {}, inputs=steps[-1].outputs)]


def _largest(call: Call, axes: list[int], keep: bool) -> list[Node]:
    steps, value = [], call.inputs[0]
    for axis in axes:
        steps.append(call.step("arg_max", [value], f"largest{axis}", axis=axis, k=1, gives="values"))
        value = steps[-1].outputs[0]
    op = "identity" if keep else "squeeze"
    return [*steps, call.node(op, {} if keep else {"axes": tuple(axes)}, inputs=(value,))]
