"""Converters of functions of one element, and of those that change nothing at inference."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ....graph import Node
from ..call import Call, converter
from ..shaping import broadcast, last, repeated, reshaped

_PLAIN = {
    "Relu": "relu", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softplus": "softplus", "Softsign": "softsign", "Erf": "erf", "HardSwish": "hard_swish", "Identity": "identity",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Sinh": "sinh", "Cosh": "cosh", "Asin": "asin", "Acos": "acos",
    "Atan": "atan", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "Sign": "sign", "Floor": "floor",
    "Ceil": "ceil", "Round": "round",
}  # fmt: skip


@converter(*_PLAIN)
def plain(call: Call) -> Node:
    """Of any shape."""
    return call.node(_PLAIN[call.op_type], inputs=call.x)


_FLOATS = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.FLOAT16: np.float16,
}


@converter("Cast", since=6)
def cast(call: Call) -> list[Node]:
    """To floats of 16, 32 and 64 bits, which stay as they are; to INT32, INT64 and BOOL."""
    to = call.attr("to")
    call.ignore_attrs("saturate", "round_mode")  # of 8-bit floats
    if to in _FLOATS:
        return [call.node("identity", inputs=call.x)]
    call.model.integers.update(call.outputs)
    if to in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        return [call.node("trunc", inputs=call.x)]
    if to == onnx.TensorProto.BOOL:
        zero = call.step("compare", call.x, "zero", {"bound": np.zeros((), np.float32)}, kind="equal")
        params = {"scale": np.asarray(-1, np.float32), "shift": np.asarray(1, np.float32)}
        return [zero, call.node("affine", params=params, inputs=zero.outputs)]
    name = onnx.TensorProto.DataType.Name(to) if to in onnx.TensorProto.DataType.values() else to
    raise call.refusal(f"attribute to = {name}", "FLOAT, DOUBLE, FLOAT16, INT32, INT64 or BOOL")


@converter("CastLike", since=15)
def cast_like(call: Call) -> list[Node]:
    """To float types, as Cast."""
    call.ignore_attrs("saturate", "round_mode")
    call.ignore_input(1)
    like = call.model.constants.get(call.inputs[1])
    is_float = call.inputs[1] not in call.model.integers if like is None else like.dtype in _FLOATS.values()
    if not is_float:
        raise call.refusal(f"to {'integers' if like is None else like.dtype}", "a float type of 16 bits or more")
    constant = call.constant(0)
    if constant is None:
        return [call.node("identity", inputs=call.x)]
    call.becomes(constant.astype(np.float32 if like is None else like.dtype))
    return []


@converter("Dropout", until=6)
def dropout_by_is_test(call: Call) -> Node:
    """Nothing at inference."""
    if not call.flag("is_test"):
        raise call.refusal("attribute is_test = 0: it drops at random", "1")
    return _undropped(call)


@converter("Dropout", since=7)
def dropout(call: Call) -> list[Node]:
    """Nothing at inference; the mask is all ones."""
    ratio = call.constant(1)
    training = call.optional(2, "training_mode")
    if training is None or not np.asarray(training).reshape(-1)[0]:
        call.ignore_input(1)  # the ratio
    elif ratio is None or ratio != 0:
        raise call.refusal("input training_mode is true: it drops at random", "false")
    call.ignore_attrs("seed")
    nodes = [_undropped(call)]
    if call.is_asked(1):
        ones = {"scale": np.asarray(0, np.float32), "shift": np.asarray(1, np.float32)}
        nodes.append(call.other(1, "affine", call.x, ones))
    return nodes


def _undropped(call: Call) -> Node:
    call.ignore_attrs("ratio")
    return call.node("identity", inputs=call.x)


@converter("LeakyRelu")
def leaky_relu(call: Call) -> Node:
    """Of any shape."""
    return call.node("leaky_relu", {"slope": call.attr("alpha", 0.01)}, inputs=call.x)


@converter("PRelu", until=6)
def prelu_per_channel(call: Call) -> Node:
    """One slope, or one per channel."""
    return call.node("prelu", params={"weight": call.required(1, "slope").reshape(-1)}, inputs=call.x)


@converter("PRelu", since=7)
def prelu(call: Call) -> list[Node]:
    """Any slope that broadcasts; other than per channel as min(x, 0) * slope + max(x, 0)."""
    slope, rank = call.required(1, "slope"), call.rank()
    per_channel = slope.ndim == rank - 1 > 0 and slope.shape == (call.length(1), *[1] * (rank - 2))
    if per_channel or (slope.size == 1 and slope.ndim <= rank):
        return [call.node("prelu", params={"weight": slope.reshape(-1)}, inputs=call.x)]
    shapes = call.known_shapes()
    after = broadcast(call, shapes, (slope.shape,) * len(shapes))
    if after != shapes:
        raise call.refusal(f"its slope has shape {list(slope.shape)} for {list(shapes[0])}", "no larger one")
    below = call.step("clip", call.x, "below", min=-math.inf, max=0.0)
    scaled = call.step("affine", below.outputs, "scaled", {"scale": slope})
    above = call.step("relu", call.x, "above")
    return [below, scaled, above, call.node("sum", inputs=(*above.outputs, *scaled.outputs))]


@converter("Elu")
def elu(call: Call) -> Node:
    """Of any shape."""
    return call.node("elu", {"alpha": call.attr("alpha", 1.0)}, inputs=call.x)


@converter("Selu", until=5)
def old_selu(call: Call) -> list[Node]:
    """Of any shape."""
    return _selu(call, 1.6732, 1.0507)


@converter("Selu", since=6)
def selu(call: Call) -> list[Node]:
    """Of any shape."""
    return _selu(call, 1.67326319217681884765625, 1.05070102214813232421875)


def _selu(call: Call, alpha: float, gamma: float) -> list[Node]:
    return [call.node("elu", {"alpha": call.attr("alpha", alpha), "scale": call.attr("gamma", gamma)}, inputs=call.x)]


@converter("Celu")
def celu(call: Call) -> list[Node]:
    """Of any shape."""
    alpha = call.attr("alpha", 1.0)
    inner = call.step("affine", call.x, "scaled", {"scale": np.asarray(1 / alpha, np.float32)})
    core = call.step("elu", inner.outputs, "elu", alpha=1.0)
    return [inner, core, call.node("affine", params={"scale": np.asarray(alpha, np.float32)}, inputs=core.outputs)]


@converter("HardSigmoid")
def hard_sigmoid(call: Call) -> Node:
    """Of any shape."""
    attrs = {"alpha": call.attr("alpha", 0.2), "beta": call.attr("beta", 0.5)}
    return call.node("hard_sigmoid", attrs, inputs=call.x)


@converter("Gelu")
def gelu(call: Call) -> Node:
    """Exact, or approximated by tanh."""
    approximate = call.attr("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise call.refusal(f"attribute approximate = {approximate!r}", "none or tanh")
    return call.node("gelu", {"tanh": approximate == "tanh"}, inputs=call.x)


@converter("Swish", since=24)
def swish(call: Call) -> Node:
    """Of any shape."""
    return call.node("silu", {"beta": call.attr("alpha", 1.0)}, inputs=call.x)


@converter("Mish", since=18)
def mish(call: Call) -> list[Node]:
    """As x * tanh(softplus(x))."""
    inner = call.step("softplus", call.x, "softplus")
    gate = call.step("tanh", inner.outputs, "tanh")
    return [inner, gate, call.node("mul", inputs=(call.x, *gate.outputs))]


@converter("ThresholdedRelu", since=10)
def thresholded_relu(call: Call) -> Node:
    """Of any shape."""
    return call.node("thresholded_relu", {"alpha": call.attr("alpha", 1.0)}, inputs=call.x)


@converter("Shrink", since=9)
def shrink(call: Call) -> Node:
    """Of any shape."""
    return call.node("shrink", {"lambd": call.attr("lambd", 0.5), "bias": call.attr("bias", 0.0)}, inputs=call.x)


@converter("Clip", until=10)
def clip_by_attributes(call: Call) -> Node:
    """Bounds are attributes."""
    return call.node("clip", {"min": call.attr("min", -math.inf), "max": call.attr("max", math.inf)}, inputs=call.x)


@converter("Clip", since=11)
def clip(call: Call) -> Node:
    """Bounds are constants."""
    bounds = {}
    for name, index, default in (("min", 1, -math.inf), ("max", 2, math.inf)):
        value = call.optional(index, name)
        bounds[name] = default if value is None else float(value.reshape(()))
    if bounds["min"] > bounds["max"]:
        bounds["min"] = bounds["max"]
    return call.node("clip", bounds, inputs=call.x)


@converter("Neg")
def negative(call: Call) -> Node:
    """Of any shape."""
    return call.node("affine", params={"scale": np.asarray(-1, np.float32)}, inputs=call.x)


@converter("Reciprocal")
def reciprocal(call: Call) -> Node:
    """Of any shape."""
    return call.node("power", {"power": -1.0}, inputs=call.x)


@converter("Pow")
def power(call: Call) -> list[Node]:
    """Constant exponents: one, or any that broadcast."""
    exponent = call.required(1, "exponent")
    if exponent.size == 1 and exponent.ndim <= 1:
        call.ignore_attrs("broadcast")  # of opset 1 to 6
        return [call.node("power", {"power": float(exponent.reshape(()))}, inputs=call.x)]
    shapes = call.known_shapes()
    after = broadcast(call, shapes, (exponent.shape,) * len(shapes))
    steps = repeated(call, call.x, shapes, after, "repeated")
    return [*steps, call.node("powers", params={"exponent": exponent}, inputs=last(steps, call.x))]


@converter("Softmax", "LogSoftmax", since=13)
def softmax(call: Call) -> Node:
    """Along one axis."""
    op = "softmax" if call.op_type == "Softmax" else "log_softmax"
    return call.node(op, {"axis": call.axis(call.attr("axis", -1))}, inputs=call.x)


@converter("Softmax", "LogSoftmax", until=12)
def softmax_of_the_rest(call: Call) -> list[Node]:
    """Over all axes from one on."""
    op = "softmax" if call.op_type == "Softmax" else "log_softmax"
    axis = call.axis(call.attr("axis", 1))
    shapes = call.shapes()
    if shapes is None:
        if axis != 1:
            call.known_shapes()
        return [call.node(op, {"axis": 1}, inputs=call.x)]
    if all(n == 1 for shape in shapes for n in shape[axis + 1 :]):
        return [call.node(op, {"axis": axis}, inputs=call.x)]
    flat = tuple((*(shape[:axis] or (1,)), math.prod(shape[axis:])) for shape in shapes)
    steps = reshaped(call, call.x, shapes, flat, "flat")
    steps.append(call.step(op, last(steps, call.x), "rows", axis=len(flat[0]) - 1))
    return [*steps, *reshaped(call, steps[-1].outputs[0], flat, shapes)]
