"""Converters of ATen calls that only move elements about: concat, split, slice, reshape, transpose, pad, resize."""

from __future__ import annotations

import sys
from typing import Any

from .aten import Activation, Call, Refusal, Result, converts, spatial


@converts("cat", "concat", "stack")
def concat(c: Call) -> Result:
    parts = [part for part in c["tensors"] if getattr(part, "shape", None) != (0,)]  # torch skips empty 1-d tensors
    if not all(isinstance(part, Activation) for part in parts):
        raise Refusal("joins activations with constants")
    axis = c.axis("dim", len(c.out.shape))
    values = [part.value for part in parts]
    if c.op == "stack":
        values = [c.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return c.emit("concat", *values, axis=axis) if len(values) > 1 else c.emit("identity", values[0])


@converts("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split")
def split(c: Call) -> Result:
    x = c.activation("self")
    axis = c.axis("dim", len(x.shape))
    sizes = tuple(out.shape[axis] for out in c.outs if out is not None)
    if not all(isinstance(n, int) for n in sizes):
        raise Refusal("splits the batch")
    return c.emit_many("split", len(sizes), x.value, axis=axis, sizes=sizes)


def _slice(c: Call, x: Activation, axis: int, start: int, end: int, step: int = 1) -> str:
    return c.emit("slice", x.value, axes=(axis,), starts=(start,), ends=(end,), steps=(step,))


@converts("slice")
def slice_(c: Call) -> Result:
    x = c.activation("self")
    axis = c.axis("dim", len(x.shape))
    start, end = c.args.get("start"), c.args.get("end")
    start, end = 0 if start is None else start, sys.maxsize if end is None else end
    size = x.shape[axis]
    if start == 0 and c["step"] == 1 and (end == sys.maxsize or end == size):
        return x.value
    if not all(isinstance(n, int) for n in (start, end, size)):
        raise Refusal("takes a part of the batch")
    start, end, step = slice(start, end, c["step"]).indices(size)
    return _slice(c, x, axis, start, end, step)


@converts("select")
def select(c: Call) -> Result:
    x = c.activation("self")
    axis = c.axis("dim", len(x.shape))
    if not isinstance(x.shape[axis], int):
        raise Refusal("takes one image of the batch")
    index = int(c["index"]) % x.shape[axis]
    one = Activation(_slice(c, x, axis, index, index + 1), (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return c.reshape(one, c.out.shape)


@converts("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as")
def reshape(c: Call) -> Result:
    x = c.activation("self")
    if c.op.startswith("expand") and x.shape != c.out.shape:
        raise Refusal(f"repeats elements, {list(x.shape)} to {list(c.out.shape)}")
    return c.reshape(x, c.out.shape)


@converts("permute", "transpose", "t")
def transpose(c: Call) -> Result:
    x = c.activation("self")
    rank = len(x.shape)
    perm = [d % rank for d in c["dims"]] if c.op == "permute" else list(range(rank))
    if c.op != "permute":
        a, b = (0, rank - 1) if c.op == "t" else (c.axis("dim0", rank), c.axis("dim1", rank))
        perm[a], perm[b] = perm[b], perm[a]
    return c.emit("transpose", x.value, perm=tuple(perm))


@converts("pad", "constant_pad_nd")
def pad(c: Call) -> Result:
    x, flat = c.activation("self"), c.ints("pad", 1)
    if c.args.get("mode", "constant") != "constant":
        raise Refusal(f"pads by '{c['mode']}', wanted a constant")
    if any(n < 0 for n in flat):
        raise Refusal("has negative padding")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    pads = ((0, 0),) * (len(x.shape) - len(pairs)) + tuple(pairs)
    value = c.args.get("value")
    return c.emit("pad", x.value, pads=pads, value=float(value or 0))


@converts("upsample_nearest1d", "upsample_nearest2d", "upsample_linear1d", "upsample_bilinear2d")
def resize(c: Call) -> Result:
    x = c.activation("input" if "input" in c.args else "self")
    spatial(x)
    mode = "nearest" if "nearest" in c.op else "linear"
    factors = c.args.get("scale_factors")
    attrs: dict[str, Any] = {"scale": tuple(map(float, factors))} if factors else {"size": tuple(c.out.shape[2:])}
    return c.emit("resize", x.value, mode=mode, align_corners=bool(c.args.get("align_corners")), **attrs)
