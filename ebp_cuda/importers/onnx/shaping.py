"""Nodes that give an activation another shape: reshaped so that no image is mixed, or repeated to meet another one.

Shapes are what they are under each assumption about the input (sizes.py), first the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...graph import Node
from .call import Call
from .sizes import Shapes


def target_shape(call: Call, before: Shapes, after: Shapes) -> tuple[int, ...]:
    """The attribute of a reshape from `before` to `after`: 0 where a length is copied, -1 where it is inferred.

    Where the first axis does not stay, images are mixed, and the reshape says so by not copying it. An exporter may
    have written the batch of its example: where the rest holds as much as an image does, that is the batch.

    Raises:
        UnsupportedError: where several lengths follow from the size of the input, each in its own way.
    """
    copied = list(zip(*before, strict=True))
    shape: list[int] = []
    for axis, lengths in enumerate(zip(*after, strict=True)):
        stays = axis < len(copied) and copied[axis] == lengths and (axis > 0 or 0 not in lengths)
        if stays or (axis == 0 and _is_batch_of_example(before, after)):
            shape.append(0)
        elif len(set(lengths)) == 1:
            shape.append(lengths[0])
        else:
            shape.append(-1)
    if shape.count(-1) > 1:
        raise call.refusal("several axes of its shape depend on the size of the input", "at most one")
    return tuple(shape)


def _is_batch_of_example(before: Shapes, after: Shapes) -> bool:
    several = len(before) > 1 and len({shape[0] for shape in before if shape}) > 1
    return several and all(b and prod(b[1:]) == prod(a[1:]) for b, a in zip(before, after, strict=True))


def reshaped(call: Call, x: str, before: Shapes, after: Shapes, suffix: str = "") -> list[Node]:
    """`x` as `after`: a step on the way, or without a suffix the call's own output."""
    shape = target_shape(call, before, after)
    if suffix:
        return [] if before == after else [call.step("reshape", x, suffix, shape=shape)]
    return [call.node("reshape", {"shape": shape}, inputs=x)]


def broadcast(call: Call, *shapes: Shapes) -> Shapes:
    """The shape that several broadcast to, under each assumption."""
    try:
        return tuple(tuple(np.broadcast_shapes(*each)) for each in zip(*shapes, strict=True))
    except ValueError:
        given = ", ".join(str(list(shape[0])) for shape in shapes)
        raise call.refusal(f"shapes {given} do not broadcast whatever the size of the input") from None


def repeated(call: Call, x: str, before: Shapes, after: Shapes, suffix: str, like: str = "") -> list[Node]:
    """Steps that repeat `x` until it has the shape `after`; none where it has.

    Args:
        call: the node that the steps are for.
        x: an activation.
        before: its shapes.
        after: shapes that it broadcasts to.
        suffix: for the names of the steps.
        like: an activation of the shape `after`, for where the number of repeats is not fixed.
    """
    steps: list[Node] = []
    more = len(after[0]) - len(before[0])
    if more:  # new axes come in front, so that the images move to another axis
        wider = tuple((1,) * more + shape for shape in before)
        steps += reshaped(call, x, before, wider, f"{suffix}axes")
        x, before = steps[-1].outputs[0], wider
    if before == after:
        return steps
    counts = [
        {a // b if b else 1 for b, a in zip(have, want, strict=True)}
        for have, want in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)
    ]
    if all(len(count) == 1 for count in counts):
        return [*steps, call.step("tile", x, suffix, repeats=tuple(count.pop() for count in counts))]
    if not like:
        raise call.refusal("how often it repeats depends on the size of the input", "a fixed number")
    return [*steps, call.step("expand", (x, like), suffix)]


def affine(call: Call, x: str, before: Shapes | None, **params: np.ndarray) -> list[Node]:
    """The call's output x * scale + shift, with `x` repeated first where the constants are larger."""
    if before is None:  # forward it is right all the same
        return [call.node("affine", params=params, inputs=x)]
    constant = np.broadcast_shapes(*(array.shape for array in params.values()))
    after = broadcast(call, before, (constant,) * len(before))
    steps = repeated(call, x, before, after, "repeated")
    return [*steps, call.node("affine", params=params, inputs=last(steps, x))]


def last(steps: Sequence[Node], x: str) -> str:
    """What the last of the steps writes; `x` where there is none."""
    return steps[-1].outputs[0] if steps else x
