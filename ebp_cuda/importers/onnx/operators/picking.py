"""Converters of what picks, joins, repeats or rearranges elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ....graph import Node
from ..call import PYTHON_INT, Call, converter
from ..shaping import last, repeated, reshaped
from ..sizes import Shapes

_END = int(np.iinfo(np.int64).max)


@converter("Concat", until=3)
def old_concat(call: Call) -> list[Node]:
    """Along channels, where no axis is given."""
    return _concat(call, call.attr("axis", 1))


@converter("Concat", since=4)
def concat(call: Call) -> list[Node]:
    """Of values; constants among them take up no relevance."""
    return _concat(call, call.attr("axis"))


def _concat(call: Call, axis: int) -> list[Node]:
    values = call.activations
    if len(values) == len(call.inputs):
        if len(values) == 1:
            return [call.node("identity", inputs=values)]
        return [call.node("concat", {"axis": call.axis(axis)}, inputs=values)]
    axis = call.axis(axis, call.rank(call.inputs.index(values[0])))
    return _concat_with_constants(call, axis)


def _concat_with_constants(call: Call, axis: int) -> list[Node]:
    """Zeros around each value where the constants come, and the constants added."""
    shapes = [call.known_shapes(i) for i in range(len(call.inputs))]
    lengths = [{shape[axis] for shape in each} for each in shapes]
    if any(len(each) > 1 for each in lengths):
        raise call.refusal("a constant beside values of any length", "fixed lengths on that axis")
    sizes = [each.pop() for each in lengths]
    total, start = sum(sizes), 0
    padded: list[Node] = []
    blocks: list[np.ndarray] = []
    rank = len(shapes[0][0])
    for i, size in enumerate(sizes):
        constant = call.constant(i)
        if constant is None:
            around = (start, total - start - size)
            pads = tuple(around if n == axis else (0, 0) for n in range(rank))
            padded.append(call.step("pad", call.inputs[i], f"padded{i}", pads=pads))
            call.charge(size)
            blocks.append(np.zeros([size if n == axis else 1 for n in range(rank)], np.float32))
        else:
            blocks.append(np.asarray(constant, np.float32))
        start += size
    whole = [max(block.shape[n] for block in blocks) for n in range(rank)]
    call.charge(prod(total if n == axis else whole[n] for n in range(rank)), 8)
    wide = [np.broadcast_to(b, [b.shape[n] if n == axis else whole[n] for n in range(rank)]) for b in blocks]
    if whole[0] != 1 and len(shapes[0]) > 1:
        raise call.refusal("a constant for every image", "a fixed number of images")
    steps = [*padded]
    if len(padded) > 1:
        steps.append(call.step("sum", [step.outputs[0] for step in padded], "values"))
    return [*steps, call.node("affine", params={"shift": np.concatenate(wide, axis)}, inputs=steps[-1].outputs)]


@converter("Slice", until=9)
def slice_by_attributes(call: Call) -> list[Node]:
    """Steps of 1."""
    starts, ends = call.attr("starts"), call.attr("ends")
    return _sliced(call, starts, ends, call.attr("axes"), None)


@converter("Slice", since=10)
def slice_(call: Call) -> list[Node]:
    """Constant places; backwards on an axis of fixed length."""
    columns = [
        call.required(1, "starts"),
        call.required(2, "ends"),
        call.optional(3, "axes"),
        call.optional(4, "steps"),
    ]
    starts, ends, axes, steps = (None if column is None else column.tolist() for column in columns)
    return _sliced(call, starts or (), ends or (), axes, steps)


def _sliced(
    call: Call, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> list[Node]:
    given = [range(len(starts)) if axes is None else axes, starts, ends, [1] * len(starts) if steps is None else steps]
    forwards: list[tuple[int, ...]] = []
    nodes: list[Node] = []
    for axis, start, end, step in zip(*([int(n) for n in column] for column in given), strict=True):
        axis = call.axis(axis)
        if step > 0:
            forwards.append((axis, start, end, step))
        elif step == 0:
            raise call.refusal("input steps holds 0", "other steps")
        else:
            length = call.length(axis)
            call.charge(length, PYTHON_INT)
            picked = tuple(range(length)[slice(start, None if end < -length else end, step)])
            x = last(nodes, call.x)
            nodes.append(call.step("select", x, f"backwards{axis}", axis=axis, indices=picked))
    if not forwards:
        return [*nodes, call.node("identity", inputs=last(nodes, call.x))]
    columns = zip(("axes", "starts", "ends", "steps"), zip(*forwards, strict=True), strict=True)
    return [*nodes, call.node("slice", dict(columns), inputs=last(nodes, call.x))]


@converter("Split", until=12)
def split_by_attribute(call: Call) -> Node:
    """Into parts of given sizes, or equal ones."""
    sizes = call.numbers("split", 1)
    return _split(call, sizes, None)


@converter("Split", since=13, until=17)
def split_by_input(call: Call) -> Node:
    """Into parts of given sizes, or equal ones."""
    return _split(call, call.numbers("split", 1), None)


@converter("Split", since=18)
def split(call: Call) -> Node:
    """Into parts of given sizes, or num_outputs parts of which the last may be smaller."""
    return _split(call, call.numbers("split", 1), call.attr("num_outputs"))


def _split(call: Call, sizes: tuple[int, ...] | None, count: int | None) -> Node:
    axis = call.axis(call.attr("axis", 0))
    if sizes is None:
        whole = call.length(axis)
        if count is None and whole % len(call.outputs):
            raise call.refusal(f"{whole} elements in {len(call.outputs)} equal parts")
        part = -(-whole // (count or len(call.outputs)))
        sizes = tuple(max(min(part, whole - i * part), 0) for i in range(len(call.outputs)))
    outputs = [name or f"{call.name}.unused{i}" for i, name in enumerate(call.outputs)]
    return call.node("split", {"axis": axis, "sizes": sizes}, inputs=call.x, outputs=outputs)


@converter("Gather")
def gather(call: Call) -> list[Node]:
    """By constant numbers along an axis."""
    indices, axis = call.required(1, "indices"), call.axis(call.attr("axis", 0))
    if indices.ndim == 0:
        one = int(indices)
        ends = (one + 1 if one != -1 else _END,)
        part = call.step("slice", call.x, "part", axes=(axis,), starts=(one,), ends=ends, steps=(1,))
        return [part, call.node("squeeze", {"axes": (axis,)}, inputs=part.outputs)]
    numbers = _positive(call, axis, indices)
    if indices.ndim == 1:
        return [call.node("select", {"axis": axis, "indices": numbers}, inputs=call.x)]
    picked = call.step("select", call.x, "picked", axis=axis, indices=numbers)
    before = tuple((*s[:axis], len(numbers), *s[axis + 1 :]) for s in call.known_shapes())
    after = tuple((*s[:axis], *indices.shape, *s[axis + 1 :]) for s in call.known_shapes())
    return [picked, *reshaped(call, picked.outputs[0], before, after)]


def _positive(call: Call, axis: int, indices: np.ndarray) -> tuple[int, ...]:
    if indices.size and indices.min() < 0:
        size = call.length(axis)
        return tuple(int(n) % size for n in indices.reshape(-1))
    return tuple(int(n) for n in indices.reshape(-1))


def _picked_flat(call: Call, places: np.ndarray, shape: tuple[int, ...]) -> list[Node]:
    """Elements of all images by their row-major places, as an array of that shape."""
    shapes = call.known_shapes()
    flat: Shapes = tuple((1, prod(s)) for s in shapes)
    steps = reshaped(call, call.x, shapes, flat, "flat")
    numbers = tuple(int(n) for n in places.reshape(-1))
    steps.append(call.step("select", last(steps, call.x), "picked", axis=1, indices=numbers))
    return [*steps, *reshaped(call, steps[-1].outputs[0], ((1, len(numbers)),) * len(shapes), (shape,) * len(shapes))]


@converter("GatherElements", since=11)
def gather_elements(call: Call) -> list[Node]:
    """By constant places, the same for every image."""
    indices, axis, rank = call.required(1, "indices"), call.axis(call.attr("axis", 0)), call.rank()
    grid = np.indices(indices.shape)
    size = call.length(axis)
    grid[axis] = np.where(indices < 0, indices + size, indices)
    shapes = call.known_shapes()
    any_batch = len({shape[0] for shape in shapes}) > 1
    if any_batch:
        raise call.refusal("its indices are those of a number of images", "a fixed number")
    lengths = [call.length(n) for n in range(rank)]
    return _picked_flat(call, np.asarray(np.ravel_multi_index(tuple(grid), lengths)), indices.shape)


@converter("GatherND", since=11)
def gather_nd(call: Call) -> list[Node]:
    """By constant places; batch_dims of 1 with the same places for every image."""
    indices, batch = call.required(1, "indices"), call.attr("batch_dims", 0)
    depth = indices.shape[-1]
    any_batch = len({shape[0] for shape in call.known_shapes()}) > 1
    if batch > 1 or (batch == 1 and any_batch):
        raise call.refusal(f"attribute batch_dims = {batch}", "0, or a fixed number of images")
    axes = range(batch, batch + depth)
    lengths = [call.length(axis) for axis in axes]
    places = np.moveaxis(np.where(indices < 0, indices + np.array(lengths), indices), -1, 0)
    rest = tuple(call.length(axis) for axis in range(batch + depth, call.rank()))
    call.charge(prod(rest) * (1 + indices.size // depth), 2 * PYTHON_INT)
    tail = np.arange(prod(rest)).reshape(rest) if rest else np.zeros((), np.int64)
    flat = np.ravel_multi_index(tuple(places), lengths)
    if batch:
        count = call.length(0)
        call.charge(count, 8)
        flat = flat + (np.arange(count) * prod(lengths)).reshape(-1, *[1] * (flat.ndim - 1))
    whole = flat.reshape(*flat.shape, *[1] * len(rest)) * prod(rest) + tail
    return _picked_flat(call, whole, whole.shape)


@converter("Tile", since=6)
def tile(call: Call) -> list[Node]:
    """Constant repeats."""
    return _tiled(call, [n[0] for n in call.lengths(1, "repeats")])


@converter("Tile", until=5)
def tile_one_axis(call: Call) -> list[Node]:
    """Constant repeats along one axis."""
    count, axis = (int(call.required(i, what).reshape(())) for i, what in ((1, "tiles"), (2, "axis")))
    return _tiled(call, [count if n == axis else 1 for n in range(call.rank())])


def _tiled(call: Call, repeats: Sequence[int]) -> list[Node]:
    return [call.node("tile", {"repeats": tuple(repeats)}, inputs=call.x)]


@converter("Expand", since=8)
def expand(call: Call) -> list[Node]:
    """To sizes that are constants or follow from those of the input."""
    wanted, before = call.lengths(1, "shape"), call.known_shapes()
    shapes = list(zip(*wanted, strict=True)) or [()] * len(before)
    after = []
    for have, want in zip(before, shapes, strict=True):
        try:
            after.append(tuple(np.broadcast_shapes(have, want)))
        except ValueError:
            raise call.refusal(f"{list(have)} does not expand to {list(want)} whatever the input") from None
    steps = repeated(call, call.x, before, tuple(after), "repeated")
    return [*steps, call.node("identity", inputs=last(steps, call.x))]


@converter("Pad", until=10)
def pad_by_attributes(call: Call) -> list[Node]:
    """By constants, reflection or the edge; negative pads cut."""
    flat = call.attr("pads") or call.attr("paddings")  # "paddings" is opset 1
    return _padded(call, flat, float(call.attr("value", 0.0)), None)


@converter("Pad", since=11)
def pad(call: Call) -> list[Node]:
    """By constants, reflection, the edge or from the other side; negative pads cut."""
    flat, number, axes = call.required(1, "pads"), call.optional(2, "value"), call.optional(3, "axes")
    value = 0.0 if number is None or not number.size else float(number.reshape(()))
    return _padded(call, [int(n) for n in flat], value, None if axes is None else [int(n) for n in axes])


def _padded(call: Call, flat: Sequence[int], value: float, axes: Sequence[int] | None) -> list[Node]:
    half = len(flat) // 2
    pairs = list(zip(flat[:half], flat[half:], strict=True))
    if axes is not None:
        by_axis = dict(zip((call.axis(axis) for axis in axes), pairs, strict=True))
        pairs = [by_axis.get(axis, (0, 0)) for axis in range(call.rank())]
    mode = call.attr("mode", "constant")
    if mode != "constant" and mode not in _ROWS:
        raise call.refusal(f"attribute mode = {mode!r}", f"constant, {', '.join(_ROWS)}")
    steps = _cut(call, pairs)
    if mode != "constant" and steps:
        raise call.refusal(f"attribute mode = {mode!r} with negative pads", "constant")
    pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant":
        attrs = {"pads": tuple(pairs), "value": value}
        return [*steps, call.node("pad", attrs, inputs=last(steps, call.x))]
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            size = call.length(axis)
            call.charge(before + size + after, PYTHON_INT)
            rows = tuple(_ROWS[mode](n, size) for n in range(-before, size + after))
            if min(rows) < 0:
                raise call.refusal(f"attribute pads = {list(pairs[axis])} for an axis of {size}", "smaller ones")
            steps.append(call.step("select", last(steps, call.x), f"axis{axis}", axis=axis, indices=rows))
    return [*steps, call.node("identity", inputs=last(steps, call.x))]


_ROWS: dict[str, Callable[[int, int], int]] = {
    "reflect": lambda n, size: size - 1 - abs(size - 1 - abs(n)),
    "edge": lambda n, size: min(max(n, 0), size - 1),
    "wrap": lambda n, size: n % size,
}
"""Which row of an axis stands at place n, which may lie outside."""


def _cut(call: Call, pairs: Sequence[tuple[int, int]]) -> list[Node]:
    """The step in which negative padding takes away."""
    cut = [(axis, max(-b, 0), max(-a, 0)) for axis, (b, a) in enumerate(pairs) if b < 0 or a < 0]
    if not cut:
        return []
    axes, starts = tuple(axis for axis, _, _ in cut), tuple(before for _, before, _ in cut)
    ends = tuple(-after if after else _END for _, _, after in cut)
    return [call.step("slice", call.x, "cut", axes=axes, starts=starts, ends=ends, steps=(1,) * len(axes))]
