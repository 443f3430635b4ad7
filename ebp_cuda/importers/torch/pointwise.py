"""Converters of element-wise ATen calls (see aten.py)."""

from __future__ import annotations

from typing import Any

import torch

from .aten import CONVERTERS, Activation, Call, Refusal, Result, converts

# Functions of one activation


def _plain(aten: str, op: str) -> None:
    CONVERTERS[aten] = lambda c: c.emit(op, c.activation("self").value)


for _aten, _op in {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "hardswish": "hard_swish",
    "abs": "abs",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
}.items():
    _plain(_aten, _op)


@converts("clone", "alias", "detach", "contiguous", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh_copy")
def identity(c: Call) -> Result:
    if c.args.get("train"):
        raise Refusal("drops activations at random")
    return c.emit("identity", c.activation("input" if "input" in c.args else "self").value)


@converts("to", "_to_copy")
def cast(c: Call) -> Result:
    x = c.activation("self")
    if x.dtype != c.out.dtype:
        raise Refusal(f"changes {x.dtype} to {c.out.dtype}")
    return c.emit("identity", x.value)


@converts("leaky_relu")
def leaky_relu(c: Call) -> Result:
    return c.emit("leaky_relu", c.activation("self").value, slope=c.number("negative_slope"))


@converts("prelu", "_prelu_kernel")
def prelu(c: Call) -> Result:
    weight = c.param("weight")
    assert weight is not None
    return c.emit("prelu", c.activation("self").value, params={"weight": weight.reshape(-1)})


@converts("elu")
def elu(c: Call) -> Result:
    if c.number("input_scale") != 1:
        raise Refusal(f"has an input scale of {c['input_scale']}")
    return c.emit("elu", c.activation("self").value, alpha=c.number("alpha"), scale=c.number("scale"))


@converts("selu")
def selu(c: Call) -> Result:
    """With the constants of Klambauer et al. 2017, as torch has them."""
    return c.emit("elu", c.activation("self").value, alpha=1.6732632423543772, scale=1.0507009873554805)


@converts("rrelu", "rrelu_with_noise")
def rrelu(c: Call) -> Result:
    """In evaluation mode its slope is the mean of the bounds."""
    if c.args.get("training"):
        raise Refusal("draws its slopes at random")
    return c.emit("leaky_relu", c.activation("self").value, slope=(c.number("lower") + c.number("upper")) / 2)


@converts("gelu")
def gelu(c: Call) -> Result:
    attrs: dict[str, Any] = {} if c["approximate"] == "none" else {"tanh": True}
    return c.emit("gelu", c.activation("self").value, **attrs)


@converts("celu")
def celu(c: Call) -> Result:
    x, alpha = c.activation("self"), c.number("alpha")
    scaled = c.emit("elu", affine(c, x.value, x, 1 / alpha, None), alpha=1.0)
    return affine(c, scaled, x, alpha, None)


@converts("log_sigmoid")
def log_sigmoid(c: Call) -> Result:
    return c.emit("log", c.emit("sigmoid", c.activation("self").value))


@converts("glu")
def glu(c: Call) -> Result:
    x = c.activation("self")
    axis, half = c.axis("dim", len(x.shape)), c.out.shape
    value, gate = c.emit_many("split", 2, x.value, axis=axis, sizes=(half[axis],) * 2)
    return c.emit("mul", value, c.emit("sigmoid", gate))


@converts("hardsigmoid")
def hard_sigmoid(c: Call) -> Result:
    return c.emit("hard_sigmoid", c.activation("self").value, alpha=1 / 6, beta=0.5)


@converts("softplus")
def softplus(c: Call) -> Result:
    x, beta = c.activation("self"), c.number("beta")
    scaled = affine(c, x.value, x, beta, None)
    return affine(c, c.emit("softplus", scaled), x, 1 / beta, None)


@converts("mish")
def mish(c: Call) -> Result:
    x = c.activation("self").value
    return c.emit("mul", x, c.emit("tanh", c.emit("softplus", x)))


@converts("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax")
def softmax(c: Call) -> Result:
    x = c.activation("self")
    op = "log_softmax" if "log" in c.op else "softmax"
    return c.emit(op, x.value, axis=c.axis("dim", len(x.shape)))


# Two operands: two activations, or one and a constant


def constant(c: Call, operand: Any, x: Activation) -> torch.Tensor:
    tensor = operand if isinstance(operand, torch.Tensor) else torch.tensor(operand)
    try:
        fits = torch.broadcast_shapes(tensor.shape, [n if isinstance(n, int) else 1 for n in c.out.shape])
    except RuntimeError:
        fits = torch.Size()
    if len(fits) != len(c.out.shape):
        raise Refusal(f"broadcasts {list(x.shape)} to {list(c.out.shape)} by a constant")
    return tensor.to(x.dtype)


def broadcast(c: Call, x: Activation, shape: tuple[Any, ...]) -> str:
    """`x` repeated to `shape`, as torch's arithmetic does it."""
    if x.shape == shape:
        return x.value
    if len(x.shape) < len(shape):
        raise Refusal(f"broadcasts {list(x.shape)} to {list(shape)}: the images of a batch become something else")
    if x.shape[:1] != shape[:1]:
        raise Refusal(f"broadcasts {list(x.shape)} to {list(shape)}, over the images of a batch")
    repeats = tuple(1 if n == m else m for n, m in zip(x.shape, shape, strict=True))
    if all(isinstance(n, int) for n in repeats):
        return c.emit("tile", x.value, repeats=repeats)
    like = next((part for part in c.args.values() if isinstance(part, Activation) and part.shape == shape), None)
    if like is None:
        raise Refusal(f"broadcasts {list(x.shape)} to {list(shape)}")
    return c.emit("expand", x.value, like.value)


def affine(c: Call, value: str, x: Activation, scale: Any, shift: Any) -> str:
    """value * scale + shift; a number that changes nothing is left out, and so is the node where both are."""
    params = {"scale": None if _is(scale, 1) else scale, "shift": None if _is(shift, 0) else shift}
    held = {name: constant(c, param, x) for name, param in params.items() if param is not None}
    if not held:
        return value
    return c.emit("affine", broadcast(c, Activation(value, x.shape, x.dtype), c.out.shape), params=held)


def _is(operand: Any, number: float) -> bool:
    return operand is None or (not isinstance(operand, torch.Tensor) and operand == number)


@converts("add", "sub", "subtract", "rsub")
def add(c: Call) -> Result:
    a, b, alpha = c["self"], c["other"], c.args.get("alpha", 1)
    sign_a, sign_b = {"add": (1, alpha), "rsub": (-alpha, 1)}.get(c.op, (1, -alpha))
    if isinstance(a, Activation) and isinstance(b, Activation):
        plain = (sign_a, sign_b) == (1, 1)
        values = [broadcast(c, part, c.out.shape) for part in (a, b)]
        return c.emit("sum", *values, coefficients=None if plain else (float(sign_a), float(sign_b)))
    if isinstance(a, Activation):
        return affine(c, a.value, a, sign_a, b * sign_b)
    x = c.activation("other")
    return affine(c, x.value, x, sign_b, a * sign_a)


@converts("mul", "multiply")
def mul(c: Call) -> Result:
    a, b = c["self"], c["other"]
    if isinstance(a, Activation) and isinstance(b, Activation):
        return c.emit("mul", *_factors(c, a, b))
    x, factor = (a, b) if isinstance(a, Activation) else (b, a)
    return affine(c, x.value, x, factor, None)


def _factors(c: Call, a: Activation, b: Activation) -> tuple[str, str]:
    """The factors of a product; one of them has its full shape."""
    if c.out.shape not in (a.shape, b.shape):
        return broadcast(c, a, c.out.shape), b.value
    if len(a.shape) != len(b.shape) or a.shape[:1] != b.shape[:1]:
        raise Refusal(f"multiplies {list(a.shape)} with {list(b.shape)}, over the images of a batch")
    return a.value, b.value


@converts("div", "divide", "true_divide")
def div(c: Call) -> Result:
    a, b = c["self"], c["other"]
    if c.args.get("rounding_mode") is not None:
        raise Refusal(f"rounds its quotient ({c['rounding_mode']})")
    if isinstance(a, Activation) and isinstance(b, Activation):
        inverse = c.emit("power", b.value, power=-1.0, scale=1.0, shift=0.0)
        return c.emit("mul", *_factors(c, a, Activation(inverse, b.shape, b.dtype)))
    if isinstance(a, Activation):
        return affine(c, a.value, a, 1 / b, None)
    x = c.activation("other")
    return affine(c, c.emit("power", x.value, power=-1.0, scale=1.0, shift=0.0), x, a, None)


@converts("neg")
def neg(c: Call) -> Result:
    x = c.activation("self")
    return affine(c, x.value, x, -1, None)


@converts("addcmul")
def addcmul(c: Call) -> Result:
    """self + value * tensor1 * tensor2, of which any may be constant."""
    a, b, added = c["tensor1"], c["tensor2"], c["self"]
    gain = c.number("value")
    if isinstance(a, Activation) and isinstance(b, Activation):
        product = Activation(c.emit("mul", *_factors(c, a, b)), c.out.shape, c.out.dtype)
    elif isinstance(a, Activation) or isinstance(b, Activation):
        x, factor = (a, b) if isinstance(a, Activation) else (b, a)
        product = Activation(affine(c, x.value, x, factor * gain, None), c.out.shape, c.out.dtype)
        gain = 1.0
    else:
        x = c.activation("self")
        return affine(c, x.value, x, None, a * b * gain)
    if isinstance(added, Activation):
        coefficients = None if gain == 1 else (1.0, gain)
        return c.emit("sum", broadcast(c, added, c.out.shape), product.value, coefficients=coefficients)
    return affine(c, product.value, product, gain, added)
