"""torch's own operators as ONNX nodes: those that the rules use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ..errors import UnsupportedError
from .lowering import TYPES, Convert, Lowering, Made, Operand, Result, Value

TABLE: dict[str, Convert] = {}
Function = TypeVar("Function", bound=Callable[..., Any])
Ints = Sequence[int]


def lowers_into(table: dict[str, Convert]) -> Callable[..., Callable[[Function], Function]]:
    """A decorator that enters a function under the names of operators."""

    def lowers(*names: str) -> Callable[[Function], Function]:
        def enter(function: Function) -> Function:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return lowers


lowers = lowers_into(TABLE)


def reshaped(g: Lowering, x: Operand, shape: Ints) -> str:
    """x in another shape, for any number of images."""
    return g.emit("Reshape", x, g.ints(-1, *shape[1:]))


def broadcast(g: Lowering, made: Made, op: str, *operands: Any, dtype: torch.dtype | None = None) -> str:
    """A node whose operands broadcast; numbers and operands of other dtypes are converted, and a constant that is the
    same for all images is kept for one."""
    kinds = [operand.dtype for operand in operands if isinstance(operand, (Value, torch.Tensor))]
    kind = dtype or next((k for k in kinds if k.is_floating_point), kinds[0])
    ready: list[Operand] = []
    for operand in operands:
        if not isinstance(operand, (Value, torch.Tensor)):
            operand = torch.tensor(operand, dtype=kind)
        elif TYPES[operand.dtype] != TYPES[kind]:
            operand = operand.to(kind) if isinstance(operand, torch.Tensor) else g.emit("Cast", operand, to=TYPES[kind])
        ready.append(of_one_image(operand, made.shape))
    return g.emit(op, *ready)


def of_one_image(operand: Operand, shape: Ints) -> Operand:
    """A constant [N, ...] that is the same for all images, as [1, ...]; it meets values of that shape."""
    if not isinstance(operand, torch.Tensor) or operand.dim() != len(shape) or operand.shape[:1] != tuple(shape[:1]):
        return operand
    return operand[:1] if operand.dim() and bool((operand == operand[:1]).all()) else operand


# --- what changes nothing, or only the dtype ------------------------------------------------------------------------


@lowers("detach", "clone", "contiguous", "alias", "lift_fresh_copy", "positive")
def same(g: Lowering, made: Made, x: Value, *_: Any, **__: Any) -> Result:
    return x


@lowers("_to_copy", "to")
def converted(g: Lowering, made: Made, x: Value, *_: Any, **__: Any) -> Result:
    if TYPES[x.dtype] == TYPES[made.dtype]:
        return x.name
    return g.emit("Cast", x, to=TYPES[made.dtype])


# --- one element at a time ------------------------------------------------------------------------------------------

_UNARY = {
    **{name: name.capitalize() for name in ("relu", "abs", "neg", "exp", "log", "sqrt", "sigmoid", "tanh", "erf")},
    **{name: name.capitalize() for name in ("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh")},
    **{name: name.capitalize() for name in ("acosh", "atanh", "floor", "ceil", "round", "sign", "reciprocal")},
    "logical_not": "Not",
    "bitwise_not": "Not",
}
_BINARY = {
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
    "logical_and": "And",
    "logical_or": "Or",
    "bitwise_and": "And",
    "bitwise_or": "Or",
}
_COMPARED = {"gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal"}


def _enter_functions() -> None:
    for name, op in _UNARY.items():
        TABLE[name] = lambda g, made, x, op=op: g.emit(op, x)
    for name, op in {**_BINARY, **_COMPARED}.items():
        TABLE[name] = lambda g, made, a, b, op=op: broadcast(g, made, op, a, b)


_enter_functions()


@lowers("ne")
def not_equal(g: Lowering, made: Made, a: Any, b: Any) -> Result:
    return g.emit("Not", broadcast(g, made, "Equal", a, b))


@lowers("add")
def add(g: Lowering, made: Made, a: Any, b: Any, alpha: float = 1) -> Result:
    return broadcast(g, made, "Add", a, _times(g, made, b, alpha))


@lowers("sub")
def subtract(g: Lowering, made: Made, a: Any, b: Any, alpha: float = 1) -> Result:
    return broadcast(g, made, "Sub", a, _times(g, made, b, alpha))


@lowers("rsub")
def subtract_from(g: Lowering, made: Made, a: Any, b: Any, alpha: float = 1) -> Result:
    return broadcast(g, made, "Sub", b, _times(g, made, a, alpha))


def _times(g: Lowering, made: Made, x: Any, factor: float) -> Any:
    if factor == 1:
        return x
    if isinstance(x, Value):
        return Value(broadcast(g, made, "Mul", x, factor), x.shape, x.dtype)
    return x * factor


@lowers("elu")
def elu(g: Lowering, made: Made, x: Value, alpha: float = 1, scale: float = 1, inner: float = 1) -> Result:
    if inner != 1:
        raise UnsupportedError(f"ELU of {inner} * x has no form in the ONNX export")
    y = g.emit("Elu", x, alpha=float(alpha))
    return y if scale == 1 else g.emit("Mul", y, torch.tensor(scale, dtype=x.dtype))


@lowers("rsqrt")
def inverse_root(g: Lowering, made: Made, x: Value) -> Result:
    return g.emit("Reciprocal", g.emit("Sqrt", x))


@lowers("clamp")
def clamp(g: Lowering, made: Made, x: Value, least: Any = None, most: Any = None) -> Result:
    bounds = [None if bound is None else torch.tensor(bound, dtype=x.dtype) for bound in (least, most)]
    return g.emit("Clip", x, *bounds)


TABLE["clamp_min"] = lambda g, made, x, least: broadcast(g, made, "Max", x, least)


@lowers("where")
def where(g: Lowering, made: Made, mask: Any, a: Any, b: Any) -> Result:
    kinds = [t.dtype for t in (a, b) if isinstance(t, (Value, torch.Tensor))]
    if any(TYPES[kind] != TYPES[made.dtype] for kind in kinds):
        raise UnsupportedError("a choice between values of two dtypes has no form in the ONNX export")
    return g.emit("Where", *(of_one_image(operand, made.shape) for operand in (mask, a, b)))


# --- products -------------------------------------------------------------------------------------------------------


@lowers("convolution")
def convolution(
    g: Lowering,
    made: Made,
    x: Value,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Result:
    geometry: dict[str, Any] = {"strides": stride, "pads": [*padding, *padding], "dilations": dilation, "group": groups}
    if transposed:
        return g.emit("ConvTranspose", x, w, bias, output_padding=output_padding, **geometry)
    return g.emit("Conv", x, w, bias, **geometry)


@lowers("mm", "bmm", "matmul")
def product(g: Lowering, made: Made, a: Operand, b: Operand) -> Result:
    return g.emit("MatMul", a, b)


@lowers("addmm")
def product_and_sum(g: Lowering, made: Made, bias: Operand, a: Operand, b: Operand, *, beta: float = 1,
                    alpha: float = 1) -> Result:  # fmt: skip
    return g.emit("Gemm", a, b, bias, alpha=float(alpha), beta=float(beta))


# --- sums along axes ------------------------------------------------------------------------------------------------

_REDUCED = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd"}
_REDUCED["logsumexp"] = "ReduceLogSumExp"


def _enter_reductions() -> None:
    for name, op in _REDUCED.items():
        TABLE[name] = lambda g, made, x, axes, keep=False, op=op, **_: _reduced(g, op, x, axes, keep)


def _reduced(g: Lowering, op: str, x: Value, axes: int | Ints, keep: bool) -> str:
    listed = [axes] if isinstance(axes, int) else list(axes)
    return g.emit(op, x, g.ints(*listed), keepdims=int(keep))


_enter_reductions()


@lowers("linalg_vector_norm")
def norm(g: Lowering, made: Made, x: Value, order: float = 2, axes: Any = None, keep: bool = False, **_: Any) -> Result:
    if order not in (1, 2) or axes is None:
        raise UnsupportedError(f"a norm of order {order} over axes {axes} has no form in the ONNX export")
    return _reduced(g, f"ReduceL{int(order)}", x, axes, keep)


@lowers("_softmax", "_log_softmax")
def softmax(g: Lowering, made: Made, x: Value, axis: int, *_: Any) -> Result:
    return g.emit("Softmax", x, axis=axis)


TABLE["_log_softmax"] = lambda g, made, x, axis, *_: g.emit("LogSoftmax", x, axis=axis)
