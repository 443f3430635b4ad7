"""Converters of comparisons and of choices by them."""

from __future__ import annotations

import numpy as np

from ....graph import Node
from ..call import Call, converter
from ..shaping import broadcast, last, repeated

_KINDS = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
}
_MIRRORED = {
    "equal": "equal",
    "greater": "less",
    "less": "greater",
    "greater_equal": "less_equal",
    "less_equal": "greater_equal",
}


@converter("Equal", "Greater", "Less", since=7)
@converter("GreaterOrEqual", "LessOrEqual", since=12)
def comparison(call: Call) -> list[Node]:
    """With a constant or another value; the result carries no relevance."""
    kind, constants = _KINDS[call.op_type], [call.constant(0), call.constant(1)]
    values = call.activations
    if len(values) == 2:
        shapes = [call.known_shapes(0), call.known_shapes(1)]
        whole = broadcast(call, *shapes)
        like = next((value for value, shape in zip(values, shapes, strict=True) if shape == whole), "")
        steps, wide = [], []
        for i, (value, shape) in enumerate(zip(values, shapes, strict=True)):
            more = [] if shape == whole else repeated(call, value, shape, whole, f"repeated{i}", like)
            steps += more
            wide.append(last(more, value))
        return [*steps, call.node("compare", {"kind": kind}, inputs=wide)]
    if constants[1] is None:
        kind = _MIRRORED[kind]
    number = next(array for array in constants if array is not None)
    before = call.known_shapes(0 if constants[0] is None else 1)
    steps = repeated(call, values[0], before, broadcast(call, before, (number.shape,) * len(before)), "repeated")
    bound = {"bound": np.asarray(number, np.float32)}
    return [*steps, call.node("compare", {"kind": kind}, bound, inputs=last(steps, values[0]))]


@converter("Not")
def inverse(call: Call) -> Node:
    """Of a comparison's result."""
    _check_masks(call)
    params = {"scale": np.asarray(-1, np.float32), "shift": np.asarray(1, np.float32)}
    return call.node("affine", params=params, inputs=call.x)


@converter("And", since=7)
def conjunction(call: Call) -> Node:
    """Of two comparisons' results of one shape."""
    _check_masks(call)
    if len(call.activations) != 2 or call.known_shapes(0) != call.known_shapes(1):
        raise call.refusal("its operands", "two computed masks of one shape")
    return call.node("mul")


@converter("Or", since=7)
def disjunction(call: Call) -> Node:
    """Of two comparisons' results of one shape."""
    _check_masks(call)
    if len(call.activations) != 2 or call.known_shapes(0) != call.known_shapes(1):
        raise call.refusal("its operands", "two computed masks of one shape")
    return call.node("max")


def _check_masks(call: Call) -> None:
    if not call.model.integers.issuperset(call.activations):
        raise call.refusal("its operands are floats", "the results of comparisons")


@converter("Where", since=9)
def choice(call: Call) -> list[Node]:
    """Between values and constants, by a constant or a comparison."""
    params: dict[str, np.ndarray] = {}
    wide: list[str] = []
    steps: list[Node] = []
    shapes = [call.known_shapes(i) for i in range(3)]
    whole = broadcast(call, *shapes)
    like = next((call.inputs[i] for i in range(3) if shapes[i] == whole and call.inputs[i] in call.activations), "")
    for i, name in enumerate(("mask", "first", "second")):
        constant = call.constant(i)
        if constant is not None:
            params[name] = np.asarray(constant, np.float32)
            continue
        value = call.inputs[i]
        more = [] if shapes[i] == whole else repeated(call, value, shapes[i], whole, name, like)
        steps += more
        wide.append(last(more, value))
    return [*steps, call.node("where", params=params, inputs=wide)]
