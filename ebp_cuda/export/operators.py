"""The operators of the package itself (torch.ops.ebp_cuda) as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..errors import UnsupportedError
from .aten import TABLE as ATEN
from .aten import lowers_into, of_one_image, reshaped
from .lowering import Convert, Lowering, Made, Operand, Value, Winners
from .moves import MOVES

Ints = Sequence[int]
OWN: dict[str, Convert] = {}
lowers = lowers_into(OWN)


def with_columns(
    g: Lowering, s: Value, x: Operand, combine: Callable[[Operand, Operand], str], columns: int
) -> Operand:
    """s [N*K, ...] combined with x [N, ...], which the K columns of an image share."""
    x = of_one_image(x, (s.shape[0] // columns, *s.shape[1:]))
    if columns == 1:
        return combine(s, x)
    apart = g.emit("Reshape", s, g.ints(-1, columns, *s.shape[1:]))
    return reshaped(g, combine(apart, g.emit("Unsqueeze", x, g.ints(1))), s.shape)


def _columns(s: Value, x: Value | torch.Tensor) -> int:
    return s.shape[0] // x.shape[0]


@lowers("share")
def divide_or_zero(g: Lowering, made: Made, p: Value, z: Value | torch.Tensor) -> Operand:
    """p / z; a normalizer that counts as 0 is made infinite first, which leaves 0."""
    tiny, infinite = (torch.tensor(n, dtype=z.dtype) for n in (torch.finfo(z.dtype).tiny, math.inf))
    if isinstance(z, torch.Tensor):
        divisor: Operand = torch.where(z.abs() < tiny, infinite, z)
    else:
        divisor = g.emit("Where", g.emit("Less", g.emit("Abs", z), tiny), infinite, z)
    return with_columns(g, p, divisor, lambda p, z: g.emit("Div", p, z), _columns(p, z))


@lowers("gate")
def gate(g: Lowering, made: Made, s: Value, x: Value | torch.Tensor) -> Operand:
    return with_columns(g, s, x, lambda s, x: g.emit("Mul", s, x), _columns(s, x))


@lowers("conv2d_normalizer")
def normalizer(
    g: Lowering, made: Made, x: Value, w: torch.Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Operand:
    return g.emit("Conv", x, w, strides=stride, pads=padding, dilations=dilation, group=groups)


@lowers("conv2d_sweep")
def sweep(
    g: Lowering,
    made: Made,
    r: Value,
    w: torch.Tensor,
    in_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    gate: Value | torch.Tensor | None = None,
    precision: str = "fp32",
    addend: Value | None = None,
) -> Operand:
    """W+^T r, then the addend and the gate."""
    t: Operand = _transposed(g, r, w, r.shape[2:], in_size, w.shape[2:], stride, padding, dilation, groups)
    if addend is not None:
        t = g.emit("Add", t, addend)
    if gate is None:
        return t
    value = Value(g.name(t), made.shape, made.dtype)
    return with_columns(g, value, gate, lambda s, x: g.emit("Mul", s, x), _columns(value, gate))


def _transposed(
    g: Lowering,
    r: Operand,
    w: torch.Tensor,
    size: Ints,
    in_size: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> str:
    """ConvTranspose to planes of in_size; `output_padding` adds the rows that no window read."""
    reached = [(size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    beyond = [in_size[i] + padding[i] + padding[2 + i] - reached[i] for i in (0, 1)]
    geometry = {"strides": stride, "pads": padding, "dilations": dilation}
    return g.emit("ConvTranspose", r, w, output_padding=beyond, group=groups, **geometry)


def _explicit_padding(in_size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out: Ints) -> list[int]:
    """Before and behind both axes, so that ONNX's floor gives `out` windows."""
    reach = [(out[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    return [*padding, *(max(0, reach[i] - in_size[i] - padding[i]) for i in (0, 1))]


@lowers("max_pool2d")
def max_pool(
    g: Lowering, made: Made, x: Value, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out_size: Ints
) -> tuple[Value, Winners]:
    in_size = x.shape[2:]
    pads = _explicit_padding(in_size, kernel, stride, padding, dilation, out_size)
    if any(pad >= dilation[i % 2] * (kernel[i % 2] - 1) + 1 for i, pad in enumerate(pads)):
        raise UnsupportedError(
            f"max pooling of planes {list(in_size)} by {list(kernel)} with padding {list(padding)} has windows wholly "
            "outside; ONNX has no value for them"
        )
    geometry = {"kernel_shape": kernel, "strides": stride, "pads": pads, "dilations": dilation}
    name = g.emit("MaxPool", x, outputs=2, **geometry)
    return Value(name, made.shape, made.dtype), Winners(f"{name}_1", made.shape, torch.int64, math.prod(in_size))


@lowers("max_pool2d_route")
def route(g: Lowering, made: Made, p: Value, winner: Winners, in_size: Ints, *window: Ints) -> Operand:
    """p added up at its winners, of planes as rows: ScatterElements into zeros."""
    places = g.emit("Mod", winner, g.ints(winner.plane))  # ONNX counts through the whole tensor
    channels, pixels, columns = p.shape[1], math.prod(in_size), _columns(p, winner)
    if columns > 1:
        spread = g.emit("Expand", g.emit("Unsqueeze", places, g.ints(1)), g.ints(1, columns, *[1] * 3))
        places = g.emit("Reshape", spread, g.ints(-1, *winner.shape[1:]))
    rows = g.ints(0, channels, -1)
    values, at = g.emit("Reshape", p, rows), g.emit("Reshape", places, rows)
    images = g.emit("Shape", p, start=0, end=1)
    size = g.emit("Concat", images, g.ints(channels, pixels), axis=0)
    nothing = g.emit("Expand", torch.zeros(1, 1, 1, dtype=p.dtype), size)
    routed = g.emit("ScatterElements", nothing, at, values, axis=2, reduction="add")
    return reshaped(g, routed, made.shape)


def _alone(g: Lowering, x: Value) -> str:
    """Every plane as an image of one channel, for windows of ones."""
    return g.emit("Reshape", x, g.ints(-1, 1, *x.shape[2:]))


@lowers("window_sum")
def window_sum(g: Lowering, made: Made, x: Value, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints) -> Operand:
    pads = _explicit_padding(x.shape[2:], kernel, stride, padding, (1, 1), out_size)
    ones = torch.ones(1, 1, *kernel, dtype=x.dtype)
    return reshaped(g, g.emit("Conv", _alone(g, x), ones, strides=stride, pads=pads), made.shape)


@lowers("window_spread")
def window_spread(
    g: Lowering, made: Made, r: Value, in_size: Ints, kernel: Ints, stride: Ints, padding: Ints
) -> Operand:
    pads = _explicit_padding(in_size, kernel, stride, padding, (1, 1), r.shape[2:])
    ones = torch.ones(1, 1, *kernel, dtype=r.dtype)
    t = _transposed(g, _alone(g, r), ones, r.shape[2:], in_size, kernel, stride, pads, (1, 1), 1)
    return reshaped(g, t, made.shape)


@lowers("avg_pool2d")
def avg_pool(
    g: Lowering, made: Made, x: Value, kernel: Ints, stride: Ints, padding: Ints, out_size: Ints, whole: bool
) -> Operand:
    """The window's sum over its size, which the compiled operator tells: its mean of ones over their sum."""
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    mean = torch.ops.ebp_cuda.avg_pool2d.default(ones, kernel, stride, padding, out_size, whole)
    total = torch.ops.ebp_cuda.window_sum.default(ones, kernel, stride, padding, out_size)
    sums = window_sum(g, made, x, kernel, stride, padding, out_size)
    return g.emit("Mul", sums, mean / total)


@lowers("lrn")
def lrn(g: Lowering, made: Made, x: Value, size: int, alpha: float, beta: float, k: float) -> Operand:
    """The channels are laid along an axis of planes, where a window of ones adds up their squares."""
    before = (size - 1) // 2
    lines = g.emit("Reshape", g.emit("Mul", x, x), g.ints(-1, 1, x.shape[1], math.prod(x.shape[2:])))
    ones = torch.ones(1, 1, size, 1, dtype=x.dtype)
    squares = reshaped(g, g.emit("Conv", lines, ones, pads=[before, 0, size - 1 - before, 0]), x.shape)
    scaled = g.emit("Mul", squares, torch.tensor(alpha / size, dtype=x.dtype))
    base = g.emit("Add", scaled, torch.tensor(k, dtype=x.dtype))
    return g.emit("Div", x, g.emit("Pow", base, torch.tensor(beta, dtype=x.dtype)))


@lowers("max_winner")
def max_winner(g: Lowering, made: Made, xs: Sequence[Value | torch.Tensor]) -> Operand:
    """Of the first two a tie goes to the second; a later input must be greater."""
    best: Operand = xs[0]
    winner: Operand = g.ints(0)
    for place, x in enumerate(xs[1:], start=1):
        stays = g.emit("Greater", best, x) if place == 1 else g.emit("Not", g.emit("Greater", x, best))
        winner = g.emit("Where", stays, winner, g.ints(place))
        best = g.emit("Max", best, x)
    return winner


TABLE: dict[str, Convert] = {**ATEN, **MOVES, **OWN}
"""By the name of an operator: how it is written."""
