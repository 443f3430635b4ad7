"""Converters of Resize and Upsample.

What one torch interpolation does, at any size of the input, becomes that; all else, where sizes are fixed, becomes a
choice of elements (nearest) or weighted sums (linear, cubic) along one axis after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....graph import Node
from ..call import PYTHON_INT, Call, converter
from ..interpolation import COORDINATES, ROUNDINGS, Settings, coordinates, nearest, weights
from ..shaping import last

_PLANES = ("half_pixel", "pytorch_half_pixel", "align_corners")


@dataclass(frozen=True)
class _Request:
    """What a Resize asks for: by axis a scale, and a size that may follow from it."""

    axes: tuple[int, ...]
    scales: tuple[float, ...] | None
    sizes: tuple[tuple[int, ...], ...] | None
    """By axis, under each assumption about the input."""


@converter("Upsample", since=7, until=8)
def upsample_by_attribute(call: Call) -> list[Node]:
    """Nearest."""
    return _upsampled(call, call.attr("scales"))


@converter("Upsample", since=9, until=9)
def upsample(call: Call) -> list[Node]:
    """Nearest."""
    return _upsampled(call, call.required(1, "scales").tolist())


@converter("Resize", since=10, until=10)
def resize_as_upsample(call: Call) -> list[Node]:
    """Nearest."""
    return _upsampled(call, call.required(1, "scales").tolist())


def _upsampled(call: Call, scales: Sequence[float]) -> list[Node]:
    if call.attr("mode", "nearest") != "nearest":
        raise call.refusal(f"attribute mode = {call.attr('mode')!r}, whose places later opsets changed", "nearest")
    settings = Settings("nearest", "asymmetric", "floor")
    return _resized(call, settings, _Request(tuple(range(len(scales))), tuple(scales), None))


@converter("Resize", since=11)
def resize(call: Call) -> list[Node]:
    """All modes where sizes are fixed; nearest and linear scales and sizes otherwise."""
    mode = call.attr("mode", "nearest")
    settings = Settings(
        mode,
        call.attr("coordinate_transformation_mode", "half_pixel"),
        call.attr("nearest_mode", "round_prefer_floor"),
        call.attr("cubic_coeff_a", -0.75),
        call.flag("exclude_outside"),
        call.flag("antialias"),
    )
    if mode not in ("nearest", "linear", "cubic"):
        raise call.refusal(f"attribute mode = {mode!r}", "nearest, linear or cubic")
    if settings.coordinates not in COORDINATES or settings.rounding not in ROUNDINGS:
        raise call.refusal(f"attributes {settings.coordinates!r} and {settings.rounding!r}")
    if settings.coordinates != "tf_crop_and_resize":
        call.ignore_input(1)
        call.ignore_attrs("extrapolation_value")
    return _resized(call, settings, _request(call))


def _request(call: Call) -> _Request:
    axes = call.attr("axes")
    axes = tuple(range(call.rank())) if axes is None else tuple(call.axis(axis) for axis in axes)
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    given = call.constant(2)
    if given is not None and given.size:
        return _Request(axes, tuple(float(n) for n in given), None)
    if not call.given(3):
        raise call.refusal("its scales are computed by the graph", "constants")
    sizes = tuple(call.lengths(3, "size"))
    if policy == "stretch":
        return _Request(axes, None, sizes)
    ratios = [n[0] / call.length(axis) for axis, n in zip(axes, sizes, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    if policy not in ("not_larger", "not_smaller"):
        raise call.refusal(f"attribute keep_aspect_ratio_policy = {policy!r}")
    rounded = tuple((math.floor(scale * call.length(axis) + 0.5),) * len(sizes[0]) for axis in axes)
    return _Request(axes, (scale,) * len(axes), rounded)


def _resized(call: Call, settings: Settings, request: _Request) -> list[Node]:
    attrs = _as_one_interpolation(call, settings, request)
    if attrs is not None:
        return [call.node("resize", attrs, inputs=call.x)]
    steps: list[Node] = []
    outside = np.zeros([1] * call.rank(), bool)
    for i, axis in enumerate(request.axes):
        size = call.length(axis)
        wanted = None if request.sizes is None else set(request.sizes[i])
        if wanted is not None and len(wanted) > 1:
            raise call.refusal(f"the size of axis {axis} depends on that of the input", "a fixed one")
        given = None if request.scales is None else request.scales[i]
        out = wanted.pop() if wanted else math.floor(size * (given or 1.0))
        scale = out / size if given is None else given
        call.charge(out, 48 + PYTHON_INT if settings.mode == "nearest" else 48 + 12 * size)
        places = coordinates(settings, size, out, scale, _region(call, settings, i, len(request.axes)))
        if settings.coordinates == "tf_crop_and_resize":
            rows = ((places < 0) | (places > size - 1)).reshape([-1 if n == axis else 1 for n in range(call.rank())])
            call.charge(outside.size * rows.size, 9)
            outside = outside | rows
        if np.array_equal(places, np.arange(size)) and not (settings.antialias and scale < 1):
            continue
        x = last(steps, call.x)
        if settings.mode == "nearest":
            indices = tuple(int(n) for n in nearest(settings, places, size))
            steps.append(call.step("select", x, f"axis{axis}", axis=axis, indices=indices))
        else:
            matrix = {"weight": weights(settings, places, size, scale).astype(np.float32)}
            steps.append(call.step("weighted_sum", x, f"axis{axis}", matrix, axis=axis))
    if not outside.any():
        call.ignore_attrs("extrapolation_value")
        return [*steps, call.node("identity", inputs=last(steps, call.x))]
    value = np.float32(call.attr("extrapolation_value", 0.0))
    params = {"scale": (~outside).astype(np.float32), "shift": outside * value}
    return [*steps, call.node("affine", params=params, inputs=last(steps, call.x))]


def _region(call: Call, settings: Settings, index: int, count: int) -> tuple[float, float]:
    """The part of the axis that is taken, of tf_crop_and_resize's roi [starts, ends]."""
    if settings.coordinates != "tf_crop_and_resize":
        return 0.0, 1.0
    roi = call.required(1, "roi").reshape(-1)
    return float(roi[index]), float(roi[index + count])


def _as_one_interpolation(call: Call, settings: Settings, request: _Request) -> dict[str, object] | None:
    """Attributes of a `resize` of planes that does the same at every size; None where there is none."""
    shapes = call.shapes()
    if settings.antialias or settings.exclude_outside or settings.mode == "cubic":
        return None
    if (shapes is not None and len(shapes[0]) != 4) or request.axes not in ((0, 1, 2, 3), (2, 3)):
        return None
    if request.axes == (0, 1, 2, 3) and not _keeps_the_first_two(call, request):
        return None
    if request.scales is not None and request.sizes is None:
        scales = request.scales[-2:]
        return _by_scale(settings, scales)
    if request.scales is not None or request.sizes is None:
        return None
    sizes = request.sizes[-2:]
    if any(len(set(n)) > 1 for n in sizes):
        ratios = _ratios(call, sizes)
        return None if ratios is None else _by_scale(settings, ratios)
    size = tuple(n[0] for n in sizes)
    if settings.mode == "nearest":
        same = settings.coordinates == "asymmetric" and settings.rounding == "floor"
        return {"mode": "nearest", "size": size} if same else None
    if settings.coordinates not in _PLANES or (settings.coordinates != "half_pixel" and 1 in size):
        return None
    return {"mode": "linear", "align_corners": settings.coordinates == "align_corners", "size": size}


def _keeps_the_first_two(call: Call, request: _Request) -> bool:
    if request.scales is not None:
        return request.scales[:2] == (1.0, 1.0)
    shapes = call.known_shapes()
    have = list(zip(*(shape[:2] for shape in shapes), strict=True))
    return request.sizes is not None and all(h == n for h, n in zip(have, request.sizes[:2], strict=True))


def _by_scale(settings: Settings, scales: tuple[float, ...]) -> dict[str, object] | None:
    """The attributes for a scale, which must do the same at every size."""
    whole = all(scale == int(scale) and scale >= 1 for scale in scales)
    if settings.mode == "nearest":
        floored = settings.coordinates == "asymmetric" and settings.rounding == "floor"
        centered = settings.coordinates == "half_pixel" and settings.rounding.startswith("round")
        return {"mode": "nearest", "scale": scales} if floored or (centered and whole) else None
    if settings.coordinates == "half_pixel" or (settings.coordinates in _PLANES and whole):
        return {"mode": "linear", "align_corners": settings.coordinates == "align_corners", "scale": scales}
    return None


def _ratios(call: Call, sizes: Sequence[tuple[int, ...]]) -> tuple[float, ...] | None:
    """The factors by which a size that follows the input's grows, if there are some."""
    before = list(zip(*call.known_shapes(), strict=True))[2:]
    ratios = [{w / h for h, w in zip(have, want, strict=True)} for have, want in zip(before, sizes, strict=True)]
    return None if any(len(each) != 1 for each in ratios) else tuple(each.pop() for each in ratios)
