"""Converters of arithmetic between values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce as folded

import numpy as np

from ....graph import Node
from ..call import Call, converter
from ..shaping import affine, broadcast, last, repeated
from ..sizes import Shapes


@converter("Add", "Sub", "Mul", "Div", until=6)
def arithmetic_by_attributes(call: Call) -> list[Node]:
    """With a constant, whose axes begin at attribute axis, or of two values of one shape."""
    constant, axis = call.constant(1), call.attr("axis")
    if call.flag("broadcast") and constant is not None and axis is not None and constant.ndim:
        rank = call.rank()
        constant = constant.reshape(*constant.shape, *[1] * (rank - call.axis(axis, rank) - constant.ndim))
    if constant is None and call.constant(0) is None:
        a, b = call.known_shapes(0), call.known_shapes(1)
        if len(a[0]) != len(b[0]):
            raise call.refusal(f"attribute broadcast for the shapes {list(a[0])} and {list(b[0])}", "as many axes")
    return _of_two(call, call.constant(0), constant)


@converter("Add", "Sub", "Mul", "Div", since=7)
def arithmetic(call: Call) -> list[Node]:
    """With a constant, or of two values; shapes that broadcast."""
    return _of_two(call, call.constant(0), call.constant(1))


def _of_two(call: Call, a: np.ndarray | None, b: np.ndarray | None) -> list[Node]:
    if a is None and b is None:
        return _of_activations(call)
    kind, (x,) = call.op_type, call.activations
    before = call.shapes(0 if a is None else 1)
    constant = np.asarray(b if a is None else a, np.float32)
    if kind == "Div" and (x in call.model.integers):
        raise call.refusal("it divides integers", "floats")
    if a is not None and kind == "Div":
        inverse = call.step("power", x, "reciprocal", power=-1.0)
        return [inverse, *affine(call, inverse.outputs[0], before, scale=constant)]
    if kind in ("Mul", "Div"):
        return affine(call, x, before, scale=constant if kind == "Mul" else 1 / constant)
    if a is not None and kind == "Sub":
        return affine(call, x, before, scale=np.full_like(constant, -1), shift=constant)
    return affine(call, x, before, shift=constant if kind == "Add" else -constant)


def _of_activations(call: Call) -> list[Node]:
    kind, steps = call.op_type, []
    values = list(call.activations)
    shapes = [call.shapes(index) for index in range(2)]
    if kind == "Div":
        if call.model.integers.issuperset(values):
            raise call.refusal("it divides integers", "floats")
        steps.append(call.step("power", values[1], "reciprocal", power=-1.0))
        values[1] = steps[0].outputs[0]
    op = "sum" if kind in ("Add", "Sub") else "mul"
    values, more = _of_one_shape(call, op, values, shapes)
    attrs = {"coefficients": (1.0, -1.0)} if kind == "Sub" else {}
    return [*steps, *more, call.node(op, attrs, inputs=values)]


def _of_one_shape(
    call: Call, op: str, values: Sequence[str], shapes: Sequence[Shapes | None]
) -> tuple[list[str], list[Node]]:
    """The operands, repeated to the shape of all; a product only needs one of that shape."""
    known = [shape for shape in shapes if shape is not None]
    if call.model.types or len(known) < len(shapes) or len(set(known)) == 1:
        return list(values), []  # Caffe's layers say themselves what they repeat, and its inputs need no batch
    whole = broadcast(call, *known)
    like = next((value for value, shape in zip(values, known, strict=True) if shape == whole), "")
    wider, steps = [], []
    for i, (value, shape) in enumerate(zip(values, known, strict=True)):
        enough = op == "mul" and len(shape[0]) == len(whole[0]) and (like or i > 0)
        more = [] if enough or shape == whole else repeated(call, value, shape, whole, f"repeated{i}", like)
        steps += more
        wider.append(last(more, value))
    return wider, steps


_JOINED = {"Sum": "sum", "Mean": "sum", "Max": "max", "Min": "max"}


@converter("Sum", "Mean", "Max", "Min")
def joined(call: Call) -> list[Node]:
    """Of any number of values and constants; shapes that broadcast."""
    constants = [array for i in range(len(call.inputs)) if (array := call.constant(i)) is not None]
    values = call.activations
    shapes = [call.shapes(i) for i, name in enumerate(call.inputs) if name in values]
    kind = call.op_type
    steps: list[Node] = []
    if kind == "Min":  # the largest of the negatives
        steps = [call.step("affine", x, f"minus{i}", {"scale": _number(-1)}) for i, x in enumerate(values)]
        values = [step.outputs[0] for step in steps]
    if len(values) > 1:
        values, more = _of_one_shape(call, _JOINED[kind], values, shapes)
        if kind in ("Sum", "Max") and not constants:
            return [*steps, *more, call.node(_JOINED[kind], inputs=values)]
        steps += [*more, call.step(_JOINED[kind], values, "all")]
        known = [shape for shape in shapes if shape is not None]
        shapes = [broadcast(call, *known) if len(known) == len(shapes) else None]
    x, before = last(steps, values[0]), shapes[0]
    if kind in ("Max", "Min"):
        return [*steps, *_bounded(call, x, before, constants)]
    params = {"shift": np.asarray(folded(np.add, constants), np.float32)} if constants else {}
    if kind == "Mean":
        part = _number(1 / len(call.inputs))
        params = {name: array * part for name, array in params.items()} | {"scale": part}
    if not params:
        return [*steps, call.node("identity", inputs=x)]
    return [*steps, *affine(call, x, before, **params)]


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _bounded(call: Call, x: str, before: Shapes | None, constants: Sequence[np.ndarray]) -> list[Node]:
    """The largest of `x` and constants; for a minimum, of their negatives, and that negative again."""
    negated = call.op_type == "Min"
    if not constants:
        return [
            call.node("affine", params={"scale": _number(-1)}, inputs=x) if negated else call.node("identity", inputs=x)
        ]
    bound = folded(np.minimum if negated else np.maximum, constants)
    steps: list[Node] = []
    if bound.size > 1 and before is not None:
        after = broadcast(call, before, (bound.shape,) * len(before))
        steps = repeated(call, x, before, after, "repeated")
    elif bound.size > 1:
        call.known_shapes()
    least = {"least": np.asarray(-bound if negated else bound, np.float32)}
    if not negated:
        return [*steps, call.node("at_least", params=least, inputs=last(steps, x))]
    steps.append(call.step("at_least", last(steps, x), "bounded", least))
    return [*steps, call.node("affine", params={"scale": _number(-1)}, inputs=steps[-1].outputs)]
