"""Converters of what gives an activation other axes."""

from __future__ import annotations

from math import prod

from ....graph import Node
from ..call import Call, converter
from ..shaping import reshaped
from ..sizes import BATCHES, Shapes


@converter("Flatten")
def flatten(call: Call) -> list[Node]:
    """Always two axes; images are mixed where axis is not 1."""
    shapes = call.shapes()
    if shapes is None:
        if call.attr("axis", 1) != 1:
            call.known_shapes()
        return [call.node("flatten", {"axis": 1}, inputs=call.x)]
    rank = len(shapes[0])
    axis = call.attr("axis", 1)
    axis = axis if axis == rank else call.axis(axis, rank)
    if axis == 1 and rank > 1:
        return [call.node("flatten", {"axis": 1}, inputs=call.x)]
    after = tuple((prod(shape[:axis]), prod(shape[axis:])) for shape in shapes)
    return reshaped(call, call.x, shapes, after)


@converter("Reshape")
def reshape(call: Call) -> list[Node]:
    """To sizes that are constants or follow from those of the input."""
    given = call.attr("shape")  # before opset 5
    sizes = call.lengths(1, "shape") if given is None else [(n,) * len(call.model.sizes.probes) for n in given]
    zero_is_a_size = call.flag("allowzero")
    before = call.shapes()
    if before is None:
        shape = tuple(n[0] for n in sizes)
        if any(len(set(n)) > 1 for n in sizes) or not shape or shape[0] > 0 or zero_is_a_size:
            call.known_shapes()
        return [call.node("reshape", {"shape": shape}, inputs=call.x)]
    if sizes and set(sizes[0]) == {call.model.example_batch} and tuple(s[0] for s in before) == BATCHES:
        sizes[0] = BATCHES  # written for the number of images that the file declares
    wanted = list(zip(*sizes, strict=True)) or [()] * len(before)
    after = tuple(_filled_in(call, *pair, zero_is_a_size) for pair in zip(before, wanted, strict=True))
    return reshaped(call, call.x, before, after)


def _filled_in(call: Call, have: tuple[int, ...], want: tuple[int, ...], zero_is_a_size: bool) -> tuple[int, ...]:
    """A shape without 0 (copied) and -1 (inferred)."""
    shape = [have[i] if n == 0 and not zero_is_a_size else n for i, n in enumerate(want)]
    known = prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or (-1 in shape and (not known or prod(have) % known)):
        raise call.refusal(f"{list(have)} has no shape {list(want)}")
    shape = [prod(have) // known if n == -1 else n for n in shape]
    if prod(shape) != prod(have):
        raise call.refusal(f"{list(have)} has no shape {list(want)} whatever the number of images")
    return tuple(shape)


@converter("Squeeze")
def squeeze(call: Call) -> list[Node]:
    """Axes of length 1."""
    axes, shapes = call.numbers("axes", 1), call.shapes()
    if shapes is None and axes is not None and min(axes, default=0) > 0:
        return [call.node("squeeze", {"axes": axes}, inputs=call.x)]
    shapes = call.known_shapes()
    given = tuple(axis for axis, n in enumerate(shapes[0]) if n == 1) if axes is None else axes
    axes = tuple(sorted(call.axis(axis) for axis in given))
    _check_ones(call, shapes, axes)
    if not axes:
        return [call.node("identity", inputs=call.x)]
    if axes[0] == 0:  # then another axis holds the images
        after = tuple(tuple(n for axis, n in enumerate(shape) if axis not in axes) for shape in shapes)
        return reshaped(call, call.x, shapes, after)
    return [call.node("squeeze", {"axes": axes}, inputs=call.x)]


def _check_ones(call: Call, shapes: Shapes, axes: tuple[int, ...]) -> None:
    for axis in axes:
        if any(shape[axis] != 1 for shape in shapes):
            raise call.refusal(f"axis {axis} of {list(shapes[0])} goes", "one of length 1, whatever the input")


@converter("Unsqueeze")
def unsqueeze(call: Call) -> list[Node]:
    """New axes of length 1."""
    axes = call.numbers("axes", 1) or ()
    if shapes := call.shapes():
        rank = len(shapes[0]) + len(axes)
        axes = tuple(sorted(call.axis(axis, rank) for axis in axes))
        of_caffe = bool(call.model.types)  # its Scale gives a factor an axis in front, and no relevance goes there
        if axes and axes[0] == 0 and not of_caffe:  # then another axis holds the images
            after = tuple(_with_ones(shape, axes) for shape in shapes)
            return reshaped(call, call.x, shapes, after)
    return [call.node("unsqueeze", {"axes": axes}, inputs=call.x)]


def _with_ones(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with an axis of length 1 at each of the places `axes` of the result."""
    rest = iter(shape)
    return tuple(1 if axis in axes else next(rest) for axis in range(len(shape) + len(axes)))


@converter("Transpose")
def transpose(call: Call) -> Node:
    """Any order of the axes."""
    perm = call.attr("perm") or tuple(reversed(range(call.rank())))
    return call.node("transpose", {"perm": perm}, inputs=call.x)


def _block_shape(call: Call) -> tuple[int, int, int, int]:
    """Block size, channels, height and width of a node whose input has four axes of known length."""
    if call.rank() != 4:
        raise call.refusal(f"its input has {call.rank()} axes", "[N, C, height, width]")
    return int(call.attr("blocksize")), call.length(1), call.length(2), call.length(3)


def _rearranged(call: Call, parts: tuple[int, ...], perm: tuple[int, ...], shape: tuple[int, ...]) -> list[Node]:
    first = call.step("reshape", call.x, "parts", shape=parts)
    second = call.step("transpose", first.outputs, "moved", perm=perm)
    return [first, second, call.node("reshape", {"shape": shape}, inputs=second.outputs)]


@converter("DepthToSpace")
def depth_to_space(call: Call) -> list[Node]:
    """In modes DCR and CRD, where height and width are fixed."""
    (r, channels, height, width), mode = _block_shape(call), call.attr("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise call.refusal(f"attribute mode = {mode!r}", "DCR or CRD")
    inner = (r, r, channels // r**2) if mode == "DCR" else (channels // r**2, r, r)
    perm = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    return _rearranged(call, (0, *inner, height, width), perm, (0, channels // r**2, height * r, width * r))


@converter("SpaceToDepth")
def space_to_depth(call: Call) -> list[Node]:
    """In modes DCR and CRD, where height and width are fixed."""
    (r, channels, height, width), mode = _block_shape(call), call.attr("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise call.refusal(f"attribute mode = {mode!r}", "DCR or CRD")
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = (0, channels, height // r, r, width // r, r)
    return _rearranged(call, parts, perm, (0, channels * r * r, height // r, width // r))
