"""Converters of element-wise functions that few networks have: trigonometry, rounding, bounds, comparisons, choices."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from .aten import CONVERTERS, Activation, Call, Refusal, Result, converts
from .pointwise import affine, broadcast, constant

_PLAIN = (
    *("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
    *("erf", "sign", "floor", "ceil"),
)
"""Functions that have the same name in the graph."""


def _enter(aten: str, op: str) -> None:
    CONVERTERS[aten] = lambda c: c.emit(op, c.activation("self").value)


for _name in _PLAIN:
    _enter(_name, _name)
_enter("sgn", "sign")
_enter("special_erf", "erf")


@converts("round")
def round_(c: Call) -> Result:
    if c.args.get("decimals"):
        raise Refusal("rounds to decimals")
    return c.emit("round", c.activation("self").value)


@converts("log2", "log10", "log1p")
def log(c: Call) -> Result:
    factor = {"log2": 1 / math.log(2), "log10": 1 / math.log(10), "log1p": 1.0}[c.op]
    return c.emit("log", c.activation("self").value, factor=factor, shift=1.0 if c.op == "log1p" else 0.0)


@converts("exp2", "special_exp2", "expm1", "special_expm1")
def exp(c: Call) -> Result:
    x = c.activation("self")
    if "exp2" in c.op:
        return c.emit("exp", x.value, scale=math.log(2))
    return affine(c, c.emit("exp", x.value), x, None, -1.0)


@converts("erfc", "special_erfc")
def erfc(c: Call) -> Result:
    x = c.activation("self")
    return affine(c, c.emit("erf", x.value), x, -1.0, 1.0)


@converts("deg2rad", "rad2deg")
def degrees(c: Call) -> Result:
    x = c.activation("self")
    return affine(c, x.value, x, math.pi / 180 if c.op == "deg2rad" else 180 / math.pi, None)


@converts("trunc", "fix", "frac")
def trunc(c: Call) -> Result:
    """Towards zero: sign(x) * floor(|x|)."""
    x = c.activation("self").value
    whole = c.emit("mul", c.emit("floor", c.emit("abs", x)), c.emit("sign", x))
    return whole if c.op != "frac" else c.emit("sum", x, whole, coefficients=(1.0, -1.0))


@converts("logit", "special_logit")
def logit(c: Call) -> Result:
    x, value = c.activation("self"), c.activation("self").value
    if c.args.get("eps") is not None:
        value = c.emit("clip", x.value, min=c.number("eps"), max=1 - c.number("eps"))
    return c.emit("sum", c.emit("log", value), c.emit("log", value, scale=-1.0, shift=1.0), coefficients=(1.0, -1.0))


@converts("softshrink", "hardshrink")
def shrink(c: Call) -> Result:
    limit = c.number("lambd")
    return c.emit("shrink", c.activation("self").value, lambd=limit, bias=limit if c.op == "softshrink" else 0.0)


@converts("threshold")
def threshold(c: Call) -> Result:
    x, limit, value = c.activation("self"), c.number("threshold"), c.number("value")
    if value == 0 and limit >= 0:
        return c.emit("relu", x.value) if limit == 0 else c.emit("thresholded_relu", x.value, alpha=limit)
    mask = c.emit("compare", x.value, params={"bound": torch.tensor(limit, dtype=x.dtype)}, kind="greater")
    return c.emit("where", mask, x.value, params={"second": torch.tensor(value, dtype=x.dtype)})


# Bounds: the larger or smaller of two activations, or of one and a constant


def _at_least(c: Call, value: str, x: Activation, bound: Any) -> str:
    """max(value, bound), where `value` has the shape of x."""
    value = broadcast(c, Activation(value, x.shape, x.dtype), c.out.shape)
    return c.emit("at_least", value, params={"least": constant(c, bound, x)})


def _at_most(c: Call, value: str, x: Activation, bound: Any) -> str:
    """min(value, bound) = -max(-value, -bound)."""
    x = Activation("", c.out.shape, x.dtype)
    return _negated(c, _at_least(c, _negated(c, value, x), x, -constant(c, bound, x)), x)


def _negated(c: Call, value: str, x: Activation) -> str:
    return c.emit("affine", value, params={"scale": torch.tensor(-1.0, dtype=x.dtype)})


@converts("maximum", "minimum")
def extreme(c: Call) -> Result:
    a, b, is_max = c["self"], c["other"], "min" not in c.op
    if isinstance(a, Activation) and isinstance(b, Activation):
        values = [broadcast(c, part, c.out.shape) for part in (a, b)]
        if is_max:
            return c.emit("max", *values)
        return _negated(c, c.emit("max", *(_negated(c, value, a) for value in values)), a)
    x, bound = (a, b) if isinstance(a, Activation) else (b, a)
    if is_max:
        return _at_least(c, x.value, x, bound)
    return _at_most(c, broadcast(c, x, c.out.shape), x, bound)


@converts("hardtanh", "relu6", "clamp", "clamp_min", "clamp_max", "clip")
def clip(c: Call) -> Result:
    x = c.activation("self")
    low, high = (0.0, 6.0) if c.op == "relu6" else (None, None)
    low = c.args.get("min_val", c.args.get("min", low))
    high = c.args.get("max_val", c.args.get("max", high))
    if any(isinstance(bound, torch.Tensor) and bound.numel() > 1 for bound in (low, high)):
        value = broadcast(c, x, c.out.shape)
        value = value if low is None else _at_least(c, value, Activation("", c.out.shape, x.dtype), low)
        return value if high is None else _at_most(c, value, x, high)
    least, most = (_number(bound, other) for bound, other in ((low, -math.inf), (high, math.inf)))
    if c.out.shape != x.shape:
        raise Refusal(f"broadcasts {list(x.shape)} to {list(c.out.shape)} by a bound")
    return c.emit("relu", x.value) if (least, most) == (0, math.inf) else c.emit("clip", x.value, min=least, max=most)


def _number(bound: Any, missing: float) -> float:
    if isinstance(bound, torch.Tensor):
        bound = bound.item()
    if bound is not None and not isinstance(bound, (int, float)):
        raise Refusal("has a bound that is computed from the input")
    return missing if bound is None else float(bound)


# Powers and interpolation with constants


@converts("pow", "square", "rsqrt", "reciprocal")
def power(c: Call) -> Result:
    fixed = {"square": 2.0, "rsqrt": -0.5, "reciprocal": -1.0}
    if c.op in fixed:
        return c.emit("power", c.activation("self").value, power=fixed[c.op], scale=1.0, shift=0.0)
    base, exponent = c["self"], c["exponent"]
    if isinstance(base, Activation) and isinstance(exponent, Activation):
        raise Refusal("has an exponent that is computed from the input")
    if isinstance(exponent, Activation):  # b ** x = e ** (x log b)
        logs = torch.log(constant(c, base, exponent))
        if not bool(logs.isfinite().all()):
            raise Refusal("raises numbers that are not above 0 to the power of its input")
        return c.emit("exp", affine(c, exponent.value, exponent, logs, None))
    if isinstance(exponent, torch.Tensor) and exponent.numel() > 1:
        value = broadcast(c, base, c.out.shape)
        return c.emit("powers", value, params={"exponent": constant(c, exponent, base)})
    return c.emit("power", base.value, power=c.number("exponent"), scale=1.0, shift=0.0)


@converts("lerp")
def lerp(c: Call) -> Result:
    """self + weight * (end - self)."""
    start, end, weight = c["self"], c["end"], c["weight"]
    if isinstance(weight, Activation):
        raise Refusal("has a weight that is computed from the input")
    if isinstance(start, Activation) and isinstance(end, Activation):
        if isinstance(weight, torch.Tensor) and weight.numel() > 1:
            parts = [affine(c, start.value, start, 1 - weight, None), affine(c, end.value, end, weight, None)]
            return c.emit("sum", *parts, coefficients=None)
        values = [broadcast(c, part, c.out.shape) for part in (start, end)]
        share = float(weight)
        return c.emit("sum", *values, coefficients=(1 - share, share))
    if isinstance(start, Activation):
        return affine(c, start.value, start, 1 - weight, weight * end)
    return affine(c, end.value, end, weight, (1 - weight) * start)


@converts("addcdiv")
def addcdiv(c: Call) -> Result:
    """self + value * tensor1 / tensor2, with a constant tensor2."""
    if isinstance(c["tensor2"], Activation):
        raise Refusal("divides by what is computed from the input")
    return CONVERTERS["addcmul"](replace(c, args={**c.args, "tensor2": 1 / c["tensor2"]}))


@converts("ldexp")
def ldexp(c: Call) -> Result:
    """x * 2 ** other."""
    if isinstance(c["other"], Activation):
        raise Refusal("has an exponent that is computed from the input")
    x = c.activation("self")
    return affine(c, x.value, x, torch.exp2(constant(c, c["other"], x)), None)


@converts("hypot")
def hypot(c: Call) -> Result:
    a, b = c["self"], c["other"]
    if isinstance(a, Activation) and isinstance(b, Activation):
        squares = [c.emit("power", broadcast(c, x, c.out.shape), power=2.0) for x in (a, b)]
        return c.emit("sqrt", c.emit("sum", *squares, coefficients=None))
    x, other = (a, b) if isinstance(a, Activation) else (b, a)
    return c.emit("sqrt", affine(c, c.emit("power", x.value, power=2.0), x, None, other * other))


# Comparisons and choices. Masks are activations of 0 and 1 inside of a graph.

_KINDS = {"eq": "equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal"}
_TURNED = {"eq": "eq", "gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}


@converts(*_KINDS)
def compare(c: Call) -> Result:
    a, b, op = c["self"], c["other"], c.op
    if isinstance(a, Activation) and isinstance(b, Activation):
        return c.emit("compare", *(broadcast(c, part, c.out.shape) for part in (a, b)), kind=_KINDS[op])
    x, bound, op = (a, b, op) if isinstance(a, Activation) else (b, a, _TURNED[op])
    value = broadcast(c, x, c.out.shape)
    return c.emit("compare", value, params={"bound": constant(c, bound, x)}, kind=_KINDS[op])


@converts("ne")
def not_equal(c: Call) -> Result:
    equal = compare(replace(c, op="eq"))
    assert isinstance(equal, str)
    return _opposite(c, equal)


def _opposite(c: Call, mask: str) -> str:
    minus, one = torch.tensor(-1.0), torch.tensor(1.0)
    return c.emit("affine", mask, params={"scale": minus, "shift": one})


@converts("logical_not", "bitwise_not")
def opposite(c: Call) -> Result:
    x = c.activation("self")
    if x.dtype != torch.bool:
        raise Refusal(f"inverts {x.dtype}")
    return _opposite(c, x.value)


@converts("logical_and", "bitwise_and")
def both(c: Call) -> Result:
    a, b = c.activation("self"), c.activation("other")
    if (a.dtype, b.dtype) != (torch.bool, torch.bool):
        raise Refusal(f"combines {a.dtype} and {b.dtype}")
    return c.emit("mul", *(broadcast(c, part, c.out.shape) for part in (a, b)))


@converts("where", "masked_fill")
def where(c: Call) -> Result:
    """Of a mask and two choices each may be constant."""
    names = ("mask", "value", "self") if c.op == "masked_fill" else ("condition", "self", "other")
    parts = dict(zip(("mask", "first", "second"), (c[name] for name in names), strict=True))
    dtype = c.out.dtype
    params = {name: _fitting(c, part, dtype) for name, part in parts.items() if not isinstance(part, Activation)}
    values = [broadcast(c, part, c.out.shape) for part in parts.values() if isinstance(part, Activation)]
    return c.emit("where", *values, params=params)


def _fitting(c: Call, part: Any, dtype: torch.dtype) -> torch.Tensor:
    tensor = part if isinstance(part, torch.Tensor) else torch.tensor(part)
    return constant(c, tensor, Activation("", c.out.shape, dtype))


@converts("tril", "triu")
def triangle(c: Call) -> Result:
    x = c.activation("self")
    sizes = x.shape[-2:]
    if len(x.shape) < 3 or not all(isinstance(n, int) for n in sizes):
        raise Refusal("keeps a triangle over the images of a batch, or of planes of any size")
    kept = torch.ones(tuple(sizes), dtype=x.dtype)
    kept = torch.tril(kept, int(c["diagonal"])) if c.op == "tril" else torch.triu(kept, int(c["diagonal"]))
    return c.emit("where", x.value, params={"mask": kept, "second": torch.zeros((), dtype=x.dtype)})
