"""torch's operators that only move numbers about, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import UnsupportedError
from .aten import lowers_into, of_one_image, reshaped
from .lowering import Convert, Lowering, Made, Operand, Result, Value

Ints = Sequence[int]
MOVES: dict[str, Convert] = {}
lowers = lowers_into(MOVES)


@lowers("view", "_unsafe_view", "reshape", "flatten", "unflatten")
def other_shape(g: Lowering, made: Made, x: Value, *_: Any) -> Result:
    return reshaped(g, x, made.shape)


@lowers("unsqueeze")
def unsqueeze(g: Lowering, made: Made, x: Value, axis: int) -> Result:
    return g.emit("Unsqueeze", x, g.ints(axis))


@lowers("squeeze")
def squeeze(g: Lowering, made: Made, x: Value, axes: int | Ints) -> Result:
    listed = [axes] if isinstance(axes, int) else axes
    return g.emit("Squeeze", x, g.ints(*(axis for axis in listed if x.shape[axis] == 1)))


@lowers("permute")
def permute(g: Lowering, made: Made, x: Value, axes: Ints) -> Result:
    return g.emit("Transpose", x, perm=[axis % len(x.shape) for axis in axes])


@lowers("transpose")
def transpose(g: Lowering, made: Made, x: Value, first: int, second: int) -> Result:
    perm = list(range(len(x.shape)))
    perm[first], perm[second] = perm[second], perm[first]
    return g.emit("Transpose", x, perm=perm)


MOVES["t"] = lambda g, made, x: g.emit("Transpose", x, perm=[1, 0])


@lowers("expand")
def expand(g: Lowering, made: Made, x: Value, shape: Ints, **_: Any) -> Result:
    ones = [1] * (len(shape) - len(x.shape))
    same_size = [n == m for n, m in zip([*ones, *x.shape], made.shape, strict=True)]
    return g.emit("Expand", x, g.ints(*(1 if same else n for same, n in zip(same_size, made.shape, strict=True))))


@lowers("repeat_interleave")
def repeated(g: Lowering, made: Made, x: Value, times: int, axis: int, **_: Any) -> Result:
    apart = [1] * (len(x.shape) + 1)
    apart[axis + 1] = times
    spread = g.emit("Expand", g.emit("Unsqueeze", x, g.ints(axis + 1)), g.ints(*apart))
    return reshaped(g, spread, made.shape)


@lowers("cat")
def concat(g: Lowering, made: Made, xs: Sequence[Operand], axis: int = 0) -> Result:
    images = next(x for x in xs if isinstance(x, Value))
    return g.emit("Concat", *(_for_all_images(g, x, images) for x in xs), axis=axis)


@lowers("stack")
def stack(g: Lowering, made: Made, xs: Sequence[Operand], axis: int = 0) -> Result:
    return g.emit("Concat", *(g.emit("Unsqueeze", x, g.ints(axis)) for x in xs), axis=axis)


def _for_all_images(g: Lowering, x: Operand, images: Value) -> Operand:
    """A constant that is the same for all images, for as many as there are."""
    one = of_one_image(x, images.shape)
    if one is x:
        return x
    shape = g.emit("Concat", g.emit("Shape", images, start=0, end=1), g.ints(*[1] * (len(images.shape) - 1)), axis=0)
    return g.emit("Expand", one, shape)


@lowers("split_with_sizes", "split")
def split(g: Lowering, made: Made, x: Value, sizes: int | Ints, axis: int = 0) -> Result:
    if isinstance(sizes, int):
        sizes = [min(sizes, x.shape[axis] - start) for start in range(0, x.shape[axis], sizes)]
    name = g.emit("Split", x, g.ints(*sizes), outputs=len(sizes), axis=axis)
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    names = [name, *(f"{name}_{place}" for place in range(1, len(sizes)))]
    return tuple(Value(part, shape, x.dtype) for part, shape in zip(names, shapes, strict=True))


@lowers("slice")
def slice_(g: Lowering, made: Made, x: Value, axis: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1) -> Result:  # fmt: skip
    if made.shape == x.shape:
        return x.name
    corners = [(start or 0,), (2**62 if end is None else end,), (axis,), (step,)]
    return g.emit("Slice", x, *(g.ints(*corner) for corner in corners))


@lowers("select")
def select(g: Lowering, made: Made, x: Value, axis: int, place: int) -> Result:
    return g.emit("Gather", x, torch.tensor(place), axis=axis)


@lowers("index_select")
def picked(g: Lowering, made: Made, x: Value, axis: int, places: torch.Tensor) -> Result:
    return g.emit("Gather", x, places, axis=axis)


@lowers("constant_pad_nd")
def pad(g: Lowering, made: Made, x: Value, pads: Ints, value: float = 0) -> Result:
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
    pairs = [(0, 0)] * (len(x.shape) - len(pairs)) + pairs
    inside = [(axis, -min(0, before), x.shape[axis] + min(0, behind)) for axis, (before, behind) in enumerate(pairs)]
    cuts = [cut for cut, pair in zip(inside, pairs, strict=True) if min(pair) < 0]
    kept: Operand = x
    if cuts:
        axes, starts, ends = zip(*cuts, strict=True)
        kept = g.emit("Slice", x, g.ints(*starts), g.ints(*ends), g.ints(*axes))
        pairs = [(max(0, before), max(0, behind)) for before, behind in pairs]
    sides = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    return g.emit("Pad", kept, g.ints(*sides), torch.tensor(value, dtype=x.dtype))


@lowers("slice_scatter")
def slice_scatter(g: Lowering, made: Made, whole: Operand, part: Value, axis: int = 0, start: int | None = None,
                  end: int | None = None, step: int = 1) -> Result:  # fmt: skip
    """Rows before, the part, rows behind."""
    if isinstance(whole, str) or step != 1:
        raise UnsupportedError("writing into every other row has no form in the ONNX export")
    size, begin = made.shape[axis], start or 0
    if part.shape[axis] == size:
        return part.name
    stop = begin + part.shape[axis]
    pieces = [(0, begin), (stop, size)]
    before, behind = (_piece(g, whole, axis, *piece) for piece in pieces)
    return concat(g, made, [t for t in (before, part, behind) if t is not None], axis)


def _piece(g: Lowering, whole: Value | torch.Tensor, axis: int, start: int, end: int) -> Operand | None:
    if start >= end:
        return None
    if isinstance(whole, torch.Tensor):
        return whole.narrow(axis, start, end - start)
    return g.emit("Slice", whole, g.ints(start), g.ints(end), g.ints(axis))
