"""Converters of what picks, repeats, pads or rearranges elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from ...graph import Node
from .call import Call, axes_of, converter


@converter("Gather")
def gather(call: Call) -> Node | list[Node]:
    """Of a constant list of indices (that is how channels are shuffled), or of one index."""
    indices, axis = call.required(1, "indices"), call.attr("axis", 0)
    if call.constant(0) is not None or indices.ndim > 1 or axis == 0:
        raise UnsupportedError(f"{call.where}: indices of shape {list(indices.shape)} on axis {axis}; wanted one list")
    if indices.ndim == 0:
        one = int(indices)
        end = one + 1 if one != -1 else np.iinfo(np.int64).max
        part = call.step("slice", call.inputs[:1], "part", axes=(axis,), starts=(one,), ends=(int(end),), steps=(1,))
        return [part, call.node("squeeze", {"axes": (axis,)}, inputs=part.outputs)]
    return call.node("select", {"axis": axis, "indices": tuple(_positive(call, axis, indices))})


def _positive(call: Call, axis: int, indices: np.ndarray) -> list[int]:
    if indices.size and indices.min() < 0:
        size = _known(call, axis)
        return [int(n) % size for n in indices]
    return [int(n) for n in indices]


def _known(call: Call, axis: int) -> int:
    """Size of an axis of input 0 that is the same for every input of the network."""
    call.rank()
    sizes = {shape[axis] for shape in call.shapes(0) or ()}
    if len(sizes) != 1:
        raise UnsupportedError(f"{call.where}: axis {axis} may have any size; wanted a fixed one")
    return sizes.pop()


@converter("Tile")
def tile(call: Call) -> Node:
    return _tiled(call, [n[0] for n in call.lengths(1, "repeats")])


def _tiled(call: Call, repeats: Sequence[int]) -> Node:
    if repeats[0] != 1:
        raise UnsupportedError(f"{call.where}: it repeats the images of a batch {repeats[0]} times; wanted 1")
    return call.node("tile", {"repeats": tuple(repeats)}, inputs=(call.inputs[0],))


@converter("Expand")
def expand(call: Call) -> Node:
    wanted, rank = call.lengths(1, "shape"), call.rank()
    shapes = list(zip(*(call.shapes(0) or ()), strict=True))
    if len(wanted) > rank:
        raise UnsupportedError(f"{call.where}: it gives {rank} axes {len(wanted) - rank} more in front; wanted as many")
    shapes_of_wanted = [(1, 1)] * (rank - len(wanted)) + list(wanted)
    repeats = []
    for have, want in zip(shapes, shapes_of_wanted, strict=True):
        counts = {1 if w in (1, h) else w // h for h, w in zip(have, want, strict=True)}
        if len(counts) != 1:
            raise UnsupportedError(f"{call.where}: how often it repeats depends on the size of the input")
        repeats.append(counts.pop())
    return _tiled(call, repeats)


@converter("Pad")
def pad(call: Call) -> Node | list[Node]:
    given = call.attr("pads") or call.attr("paddings")  # "paddings" is opset 1
    flat = [int(n) for n in (call.required(1, "pads") if given is None else given)]
    half = len(flat) // 2
    pairs = list(zip(flat[:half], flat[half:], strict=True))
    if (axes := axes_of(call)) is not None:
        rank = call.rank()
        by_axis = dict(zip((axis % rank for axis in axes), pairs, strict=True))
        pairs = [by_axis.get(axis, (0, 0)) for axis in range(rank)]
    mode = call.attr("mode", "constant")
    steps, value = _cut(call, pairs)
    pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant":
        number = call.constant(2)
        filled = float(call.attr("value", 0.0) if number is None or not number.size else number.reshape(()))
        attrs = {"pads": tuple(pairs), "value": filled}
        return [*steps, call.node("pad", attrs, inputs=(value,))]
    if mode not in _ROWS or steps:
        raise UnsupportedError(f"{call.where}: mode {mode}; wanted constant, {', '.join(_ROWS)}")
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            size = _known(call, axis)
            rows = tuple(_ROWS[mode](n, size) for n in range(-before, size + after))
            steps.append(call.step("select", [value], f"axis{axis}", axis=axis, indices=rows))
            value = steps[-1].outputs[0]
    return [*steps, call.node("identity", inputs=(value,))]


_ROWS = {
    "reflect": lambda n, size: size - 1 - abs(size - 1 - abs(n)),
    "edge": lambda n, size: min(max(n, 0), size - 1),
    "wrap": lambda n, size: n % size,
}


def _cut(call: Call, pairs: Sequence[tuple[int, int]]) -> tuple[list[Node], str]:
    """Negative padding takes away."""
    cut = [(axis, max(-b, 0), max(-a, 0)) for axis, (b, a) in enumerate(pairs) if b < 0 or a < 0]
    if not cut:
        return [], call.inputs[0]
    axes, starts = tuple(axis for axis, _, _ in cut), tuple(before for _, before, _ in cut)
    ends = tuple(-after if after else np.iinfo(np.int64).max for _, _, after in cut)
    step = call.step(
        "slice", call.inputs[:1], "cut", axes=axes, starts=starts, ends=tuple(map(int, ends)), steps=(1,) * len(axes)
    )
    return [step], step.outputs[0]


@converter("DepthToSpace", "SpaceToDepth")
def blocks(call: Call) -> list[Node]:
    r, mode = int(call.attr("blocksize")), call.attr("mode", "DCR")
    channels = _known(call, 1)
    height, width = (0, 0)
    if call.proto.op_type == "SpaceToDepth":
        height, width = _known(call, 2), _known(call, 3)
        parts, perm = (0, channels, height // r, r, width // r, r), (0, 3, 5, 1, 2, 4)
        shape = (0, channels * r * r, height // r, width // r)
    else:
        height, width = _known(call, 2), _known(call, 3)
        inner = (r, r, channels // r**2) if mode == "DCR" else (channels // r**2, r, r)
        parts = (0, *inner, height, width)
        perm = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
        shape = (0, channels // r**2, height * r, width * r)
    first = call.step("reshape", call.inputs[:1], "parts", shape=parts)
    second = call.step("transpose", first.outputs, "moved", perm=perm)
    return [first, second, call.node("reshape", {"shape": shape}, inputs=second.outputs)]


_SETTINGS = {
    ("nearest", "asymmetric", "floor"): ("nearest", False),
    ("linear", "half_pixel", ""): ("linear", False),
    ("linear", "pytorch_half_pixel", ""): ("linear", False),
    ("linear", "align_corners", ""): ("linear", True),
}


@converter("Resize")
def resize(call: Call) -> Node:
    old = len(call.inputs) == 2 and "coordinate_transformation_mode" not in call.attrs  # opset 10: as Upsample
    mode = call.attr("mode", "nearest")
    corners = call.attr("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = call.attr("nearest_mode", "floor" if old else "round_prefer_floor") if mode == "nearest" else ""
    attrs = _wanted_size(call, *((1, 2) if old else (2, 3)))
    found = _SETTINGS.get((mode, corners, rounding))
    if mode == "nearest" and corners == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil"):
        found = ("nearest", False) if all(n == int(n) for n in attrs.get("scale", (0.5,))) else None
    if found is None or call.attr("axes") or call.attr("antialias"):
        raise UnsupportedError(f"{call.where}: {mode} interpolation, {corners} {rounding}: there is no such resize")
    return _resized(call, *found, attrs)


@converter("Upsample")
def upsample(call: Call) -> Node:
    mode = call.attr("mode", "nearest")
    if mode != "nearest":
        raise UnsupportedError(f"{call.where}: mode {mode}, whose pixel centres later opsets changed; wanted nearest")
    given = call.attr("scales")
    scales = np.asarray(given if given is not None else call.required(1, "scales"))
    return _resized(call, "nearest", False, {"scale": tuple(float(n) for n in scales[2:])})


def _resized(call: Call, mode: str, corners: bool, attrs: dict[str, Any]) -> Node:
    return call.node("resize", {"mode": mode, "align_corners": corners, **attrs}, inputs=call.inputs[:1])


def _wanted_size(call: Call, scale_index: int, size_index: int) -> dict[str, Any]:
    """Scale or size per spatial axis, as a Resize gives them for all axes."""
    if size_index < len(call.inputs) and call.inputs[size_index]:
        sizes = call.lengths(size_index, "size")
        if len(sizes) != 4:
            raise UnsupportedError(f"{call.where}: size of {len(sizes)} axes; wanted [N, C, height, width]")
        if any(a != b for a, b in sizes[2:]):
            return {"scale": _ratio(call, sizes)}
        return {"size": tuple(n[0] for n in sizes[2:])}
    scales = call.required(scale_index, "scale")
    if scales.size != 4 or not np.all(scales[:2] == 1):
        raise UnsupportedError(f"{call.where}: scale {scales.tolist()}; wanted [1, 1, height, width]")
    return {"scale": tuple(float(n) for n in scales[2:])}


def _ratio(call: Call, sizes: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
    """The factor by which a size that follows the input's grows, if there is one."""
    call.rank()
    before = list(zip(*(call.shapes(0) or ()), strict=True))
    ratios = [
        {w / h for h, w in zip(have, want, strict=True)} for have, want in zip(before[2:], sizes[2:], strict=True)
    ]
    if any(len(found) != 1 for found in ratios):
        raise UnsupportedError(
            f"{call.where}: its size is no multiple of the input's; wanted a factor or fixed numbers"
        )
    return tuple(found.pop() for found in ratios)
