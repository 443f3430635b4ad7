"""Converters of ATen calls that only move elements about: concat, split, slice, reshape, transpose, pad, resize."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .aten import Activation, Call, Refusal, Result, converts, spatial


@converts("cat", "concat", "stack")
def concat(c: Call) -> Result:
    parts = [part for part in c["tensors"] if getattr(part, "shape", None) != (0,)]  # torch skips empty 1-d tensors
    axis = c.axis("dim", len(c.out.shape))
    if not all(isinstance(part, Activation) for part in parts):
        return _concat_with_constants(c, parts, axis)
    values = [part.value for part in parts]
    if c.op == "stack":
        values = [c.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return c.emit("concat", *values, axis=axis) if len(values) > 1 else c.emit("identity", values[0])


def _concat_with_constants(c: Call, parts: list[Any], axis: int) -> str:
    """Each activation padded by zeros where constants stand beside it, joined, and the constants added.

    What reaches a constant in the top-down sweep came from no part of the image, and ends there.
    """
    if c.op == "stack" or axis == 0 or not all(isinstance(n, int) for n in c.out.shape[1:]):
        raise Refusal("joins activations with constants")
    values: list[str] = []
    for place, part in enumerate(parts):
        if not isinstance(part, Activation):
            continue
        following = next((i for i in range(place + 1, len(parts)) if isinstance(parts[i], Activation)), len(parts))
        before = 0 if values else sum(other.shape[axis] for other in parts[:place])
        after = sum(other.shape[axis] for other in parts[place + 1 : following])
        pads = tuple((before, after) if i == axis else (0, 0) for i in range(len(part.shape)))
        values.append(c.emit("pad", part.value, pads=pads, value=0.0) if before or after else part.value)
    blocks = [
        torch.zeros(1, *part.shape[1:]) if isinstance(part, Activation) else part.detach().to("cpu", torch.float32)
        for part in parts
    ]
    if any(block.shape[0] != 1 for block in blocks):
        raise Refusal("joins activations with constants that differ from image to image")
    whole = c.emit("concat", *values, axis=axis) if len(values) > 1 else values[0]
    return c.emit("affine", whole, params={"shift": torch.cat(blocks, axis)})


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


@converts("narrow")
def narrow(c: Call) -> Result:
    x = c.activation("self")
    axis, start, length = c.axis("dim", len(x.shape)), c["start"], c["length"]
    if axis == 0 or not isinstance(start, int) or not isinstance(length, int):
        raise Refusal("takes a part of the batch")
    start %= x.shape[axis]
    return _slice(c, x, axis, start, start + length)


@converts("unbind")
def unbind(c: Call) -> Result:
    x = c.activation("self")
    axis = c.axis("dim", len(x.shape))
    if axis == 0:
        raise Refusal("takes single images of the batch")
    ones = c.emit_many("split", len(c.outs), x.value, axis=axis, sizes=(1,) * len(c.outs))
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return tuple(c.reshape(Activation(one, shape), out.shape) for one, out in zip(ones, c.outs, strict=True) if out)


@converts("view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "view_as", "reshape_as")
def reshape(c: Call) -> Result:
    return c.reshape(c.activation("self"), c.out.shape)


@converts("squeeze")
def squeeze(c: Call) -> Result:
    x, dims = c.activation("self"), c.args.get("dim")
    drops_batch = dims is None or any(d % len(x.shape) == 0 for d in ([dims] if isinstance(dims, int) else dims))
    if c.one_image and drops_batch:
        raise Refusal(
            "drops the batch axis too where a batch holds one image, as the example does: give an example of two "
            "images, or name the axes (squeeze(2), flatten(1))"
        )
    return c.reshape(x, c.out.shape)


@converts("expand", "expand_as", "repeat", "tile", "broadcast_to")
def repeat(c: Call) -> Result:
    x, wanted = c.activation("self"), c.out.shape
    if x.shape == wanted:
        return x.value
    shape = (*[1] * (len(wanted) - len(x.shape)), *x.shape)
    if len(shape) > len(x.shape) and wanted[0] != 1:
        raise Refusal(
            f"repeats elements, {list(x.shape)} to {list(wanted)}: the images of a batch move to another axis"
        )
    repeats = tuple(1 if n == m else m // n for n, m in zip(shape, wanted, strict=True))
    if not all(isinstance(n, int) for n in repeats) or repeats[0] != 1:
        raise Refusal(f"repeats elements, {list(x.shape)} to {list(wanted)}, over the images of a batch")
    return c.emit("tile", x.value, repeats=repeats)


def _select(c: Call, x: Activation, axis: int, indices: Iterable[int]) -> str:
    if not isinstance(x.shape[axis], int) or axis == 0:
        raise Refusal("rearranges the images of a batch, or an axis of any size")
    return c.emit("select", x.value, axis=axis, indices=tuple(indices))


@converts("index_select")
def index_select(c: Call) -> Result:
    x, index = c.activation("self"), c.param("index")
    assert index is not None
    return _select(c, x, c.axis("dim", len(x.shape)), index.reshape(-1).tolist())


@converts("index")
def index(c: Call) -> Result:
    x, given = c.activation("self"), c["indices"]
    axes = [axis for axis, part in enumerate(given) if part is not None]
    constant = isinstance(given[axes[0]], torch.Tensor) and given[axes[0]].dim() == 1
    if len(axes) != 1 or not constant or given[axes[0]].dtype == torch.bool:
        raise Refusal("picks elements by several lists, a mask, or what it computed")
    size = x.shape[axes[0]]
    return _select(c, x, axes[0], [n % size for n in given[axes[0]].tolist()])


@converts("flip", "roll")
def flip(c: Call) -> Result:
    x = c.activation("self")
    rank, value = len(x.shape), x.value
    shifts = c.ints("shifts", 1) if c.op == "roll" else (0,) * rank
    if c.op == "roll" and not c["dims"]:
        raise Refusal("rolls over all axes at once")
    for axis, shift in zip(c["dims"], shifts, strict=False):
        size = x.shape[axis]
        if not isinstance(size, int):
            raise Refusal("rearranges an axis of any size")
        order = range(size)[::-1] if c.op == "flip" else [(n - shift) % size for n in range(size)]
        value = _select(c, Activation(value, x.shape), axis % rank, order)
    return value


@converts("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def shuffle(c: Call) -> Result:
    x = c.activation("self")
    if len(x.shape) != 4:
        raise Refusal(f"its input has {len(x.shape)} dims, wanted [N, C, H, W]")
    n, channels, height, width = x.shape
    parts: tuple[Any, ...]
    perm: tuple[int, ...]
    if "channel" in c.op:
        groups = int(c["groups"])
        parts, perm = (n, groups, channels // groups, height, width), (0, 2, 1, 3, 4)
    elif c.op == "pixel_shuffle":
        r = int(c["upscale_factor"])
        parts, perm = (n, channels // r**2, r, r, height, width), (0, 1, 4, 2, 5, 3)
    else:
        r = int(c["downscale_factor"])
        parts, perm = (n, channels, height // r, r, width // r, r), (0, 1, 3, 5, 2, 4)
    split = c.reshape(x, parts)
    moved = c.emit("transpose", split, perm=perm)
    return c.reshape(Activation(moved, tuple(parts[i] for i in perm)), c.out.shape)


@converts("permute", "transpose", "t", "movedim", "swapaxes")
def transpose(c: Call) -> Result:
    x = c.activation("self")
    rank = len(x.shape)
    perm = [d % rank for d in c["dims"]] if c.op == "permute" else list(range(rank))
    if c.op == "movedim":
        source, target = ([d % rank for d in c.ints(name, 1)] for name in ("source", "destination"))
        rest = iter(d for d in range(rank) if d not in source)
        perm = [source[target.index(d)] if d in target else next(rest) for d in range(rank)]
    elif c.op == "swapaxes":
        a, b = c.axis("axis0", rank), c.axis("axis1", rank)
        perm[a], perm[b] = perm[b], perm[a]
    elif c.op != "permute":
        a, b = (0, rank - 1) if c.op == "t" else (c.axis("dim0", rank), c.axis("dim1", rank))
        perm[a], perm[b] = perm[b], perm[a]
    return c.emit("transpose", x.value, perm=tuple(perm))


@converts("pad", "constant_pad_nd")
def pad(c: Call) -> Result:
    x, flat = c.activation("self"), c.ints("pad", 1)
    if c.args.get("mode", "constant") != "constant":
        return _pad_by_copies(c, x, flat, c["mode"])
    if any(n < 0 for n in flat):
        x, flat = _cut(c, x, flat), tuple(max(n, 0) for n in flat)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    pads = ((0, 0),) * (len(x.shape) - len(pairs)) + tuple(pairs)
    value = c.args.get("value")
    return c.emit("pad", x.value, pads=pads, value=float(value or 0))


def _axes_of(flat: Sequence[int], rank: int) -> list[tuple[int, int, int]]:
    """(axis, before, after) from torch's list of paddings, which begins with the last axis."""
    return [(rank - 1 - i // 2, flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]


def _cut(c: Call, x: Activation, flat: Sequence[int]) -> Activation:
    """Negative padding takes away."""
    for axis, before, after in _axes_of(flat, len(x.shape)):
        size = x.shape[axis]
        if before >= 0 and after >= 0:
            continue
        if not isinstance(size, int):
            raise Refusal("has negative padding on an axis of any size")
        start, end = max(-before, 0), size - max(-after, 0)
        x = Activation(_slice(c, x, axis, start, end), (*x.shape[:axis], end - start, *x.shape[axis + 1 :]), x.dtype)
    return x


def _pad_by_copies(c: Call, x: Activation, flat: Sequence[int], mode: str) -> str:
    if mode == "circular" and any(n < 0 for n in flat):
        raise Refusal("is cut on one side and wrapped around on the other")
    for axis, before, after in _axes_of(flat, len(x.shape)):
        size = x.shape[axis]
        if not isinstance(size, int):
            raise Refusal(f"pads an axis of any size by '{mode}'")
        places = range(-before, size + after)
        if mode == "replicate":
            rows = [min(max(n, 0), size - 1) for n in places]
        elif mode == "circular":
            rows = [n % size for n in places]
        else:
            rows = [size - 1 - abs(size - 1 - abs(n)) for n in places]
        x = Activation(_select(c, x, axis, rows), (*x.shape[:axis], len(rows), *x.shape[axis + 1 :]), x.dtype)
    return x.value


@converts(*(f"{mode}_pad{rank}d" for mode in ("reflection", "replication") for rank in (1, 2, 3)))
def pad_by_copies(c: Call) -> Result:
    mode = "reflect" if c.op.startswith("reflection") else "replicate"
    return _pad_by_copies(c, c.activation("self"), c.ints("padding", 1), mode)


@converts("repeat_interleave")
def repeat_interleave(c: Call) -> Result:
    """Every entry of an axis several times."""
    x, repeats = c.activation("self"), c.args.get("repeats")
    if c.args.get("dim") is None:
        raise Refusal("repeats the elements of all images in a row")
    axis = c.axis("dim", len(x.shape))
    if not isinstance(x.shape[axis], int) or axis == 0:
        raise Refusal("repeats the images of a batch, or entries of an axis of any size")
    counts = repeats.tolist() if isinstance(repeats, torch.Tensor) else [repeats]
    counts = counts * x.shape[axis] if len(counts) == 1 else counts
    return _select(c, x, axis, [index for index, count in enumerate(counts) for _ in range(count)])


@converts("unfold")
def unfold(c: Call) -> Result:
    """Windows along one axis; what lies in a window becomes the last axis."""
    x, size, step = c.activation("self"), int(c["size"]), int(c["step"])
    axis = c.axis("dimension", len(x.shape))
    if axis == 0 or not isinstance(x.shape[axis], int):
        raise Refusal("takes windows over the images of a batch, or over an axis of any size")
    starts = range(0, x.shape[axis] - size + 1, step)
    value = _select(c, x, axis, [start + place for start in starts for place in range(size)])
    flat = (*x.shape[:axis], len(starts) * size, *x.shape[axis + 1 :])
    split = (*x.shape[:axis], len(starts), size, *x.shape[axis + 1 :])
    value = c.reshape(Activation(value, flat, x.dtype), split)
    perm = [n for n in range(len(split)) if n != axis + 1]
    return c.emit("transpose", value, perm=(*perm, axis + 1))


@converts("im2col")
def columns_of_windows(c: Call) -> Result:
    """F.unfold: a convolution of each channel whose kernels pick one place each."""
    x = c.activation("self")
    spatial(x, 2)
    kernel, padding = c.ints("kernel_size", 2), c.ints("padding", 2)
    count, channels = kernel[0] * kernel[1], x.shape[1]
    if not isinstance(channels, int):
        raise Refusal("takes windows of any number of channels")
    picks = torch.eye(count, dtype=x.dtype).reshape(count, 1, *kernel).repeat(channels, 1, 1, 1)
    attrs = {"stride": c.ints("stride", 2), "padding": padding, "padding_end": padding, "groups": channels}
    value = c.emit("conv", x.value, params={"weight": picks}, dilation=c.ints("dilation", 2), **attrs)
    return c.emit("flatten", value, axis=2)


@converts("index_fill", "select_scatter", "slice_scatter")
def overwritten(c: Call) -> Result:
    """Entries of an axis replaced by constants."""
    x, axis = c.activation("self"), c.axis("dim", len(c.activation("self").shape))
    sizes = [n if isinstance(n, int) else 1 for n in x.shape]
    if axis == 0 or not isinstance(x.shape[axis], int):
        raise Refusal("writes to some images of a batch, or to an axis of any size")
    place: Any = c.args.get("index")
    if c.op == "slice_scatter":
        place = slice(c.args.get("start"), c.args.get("end"), c["step"])
    source = c["value"] if c.op == "index_fill" else c["src"]
    if isinstance(source, Activation) or isinstance(place, Activation):
        raise Refusal("writes one activation into another")
    mask, content = torch.zeros(sizes), torch.zeros(sizes)
    where = (*[slice(None)] * axis, place)
    mask[where] = 1
    content[where] = source
    return c.emit("where", x.value, params={"mask": mask, "first": content})
