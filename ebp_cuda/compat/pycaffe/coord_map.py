"""caffe.coord_map: how the pixels of one top lie over those of another, and the Crop that follows from it.

A layer maps a coordinate x of its bottom to a * x + b of its top. Along a way through the network such maps follow one
another; the fully convolutional networks of Long et al. (CVPR 2015) crop their upsampled scores by that.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from ...errors import InputError, UnsupportedError
from .net_spec import LayerCall, Top
from .net_spec import layers as L

__all__ = [
    "AxisMismatchException",
    "UndefinedMapException",
    "compose",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "inverse",
]


class UndefinedMapException(UnsupportedError):
    """A layer between two tops keeps no track of places."""


class AxisMismatchException(InputError):
    """Two maps are along different axes."""


class CoordinateMap(NamedTuple):
    """top = scale * bottom + shift, on all axes from `axis` + 1 on; axis None: the layer treats every number alike."""

    axis: int | None
    scale: Any
    """One number, or one for each spatial axis; as Caffe's `a`."""
    shift: Any


_POINTWISE = frozenset((
    "AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN", "PReLU",
    "Power", "ReLU", "Scale", "Sigmoid", "Softmax", "Split", "Swish", "TanH", "Threshold",
))  # fmt: skip
_SLIDING = ("Convolution", "Pooling", "Im2col")


def coord_map(layer: LayerCall) -> CoordinateMap:
    """The map of one layer, from its first bottom to its top. Raises UndefinedMapException."""
    if layer.kind in _POINTWISE:
        return CoordinateMap(None, Fraction(1), Fraction(0))
    if layer.kind in (*_SLIDING, "Deconvolution"):
        axis, stride, reach, pad = _window(layer)
        if layer.kind == "Deconvolution":
            return CoordinateMap(axis, stride, reach / 2 - pad)
        return CoordinateMap(axis, 1 / stride, (pad - reach / 2) / stride)
    if layer.kind == "Crop":
        settings = _settings(layer, "crop_param")
        return CoordinateMap(int(settings.get("axis", 2)) - 1, Fraction(1), -_number(layer, settings, "offset", 0))
    raise UndefinedMapException(f"coord_map: a {layer.kind} layer does not say where its pixels come from")


def compose(base: CoordinateMap, following: CoordinateMap) -> CoordinateMap:
    """First `base`, then `following`. Raises AxisMismatchException."""
    axes = {axis for axis in (base.axis, following.axis) if axis is not None}
    if len(axes) > 1:
        raise AxisMismatchException(f"coord_map: one layer counts axes from {base.axis} on, one from {following.axis}")
    return CoordinateMap(
        axes.pop() if axes else None, base.scale * following.scale, following.scale * base.shift + following.shift
    )


def inverse(base: CoordinateMap) -> CoordinateMap:
    """From the top back to the bottom."""
    return CoordinateMap(base.axis, 1 / base.scale, -base.shift / base.scale)


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordinateMap:
    """From the coordinates of one top to those of another that depends on the same data.

    Raises InputError where they do not, UndefinedMapException where a layer on the way has no map.
    """
    to_ancestors = _maps_from_below(top_to)
    for ancestor, way in _maps_from_below(top_from).items():
        if ancestor in to_ancestors:
            return compose(inverse(way), to_ancestors[ancestor])
    raise InputError("coord_map: the two tops have no blob below them in common, along layers that keep places")


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that makes `top_from` lie over `top_to`.

    Raises InputError where the two differ in scale, or an offset is negative or no whole number.
    """
    way = coord_map_from_to(top_from, top_to)
    if way.scale != 1:
        raise InputError(f"coord_map.crop: one pixel of top_from is {float(way.scale):g} of top_to; wanted one scale")
    if way.shift > 0 or way.shift.denominator != 1:
        raise InputError(f"coord_map.crop: an offset of {float(-way.shift):g} pixels; wanted a whole number from 0 on")
    axis = 1 if way.axis is None else way.axis
    cropped: Top = L.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": [int(-way.shift)]})
    return cropped


def _maps_from_below(top: Top) -> dict[Top, CoordinateMap]:
    """Every top below `top` (and itself) that a way of mapped layers leads up from, nearest first."""
    maps = {top: CoordinateMap(None, Fraction(1), Fraction(0))}
    waiting = [top]
    undefined: UndefinedMapException | None = None
    while waiting:
        above = waiting.pop(0)
        bottoms = above.layer.bottoms[:1] if above.layer.kind == "Crop" else above.layer.bottoms
        if not bottoms:
            continue
        try:
            own = coord_map(above.layer)
        except UndefinedMapException as error:
            undefined = error
            continue
        for bottom in bottoms:
            if bottom not in maps:
                maps[bottom] = compose(own, maps[above])
                waiting.append(bottom)
    if undefined is not None and len(maps) == 1:
        raise undefined
    return maps


def _window(layer: LayerCall) -> tuple[int, Fraction, Fraction, Fraction]:
    """Channel axis, stride, what the kernel reaches beyond its first pixel, pad."""
    settings = _settings(layer, "pooling_param" if layer.kind == "Pooling" else "convolution_param")
    if any(f"{name}_{side}" in settings for name in ("kernel", "stride", "pad") for side in "hw"):
        raise UndefinedMapException(f"coord_map: a {layer.kind} layer with settings for height and width each")
    kernel = _number(layer, settings, "kernel_size", 1)
    reach = _number(layer, settings, "dilation", 1) * (kernel - 1)
    stride, pad = _number(layer, settings, "stride", 1), _number(layer, settings, "pad", 0)
    return int(settings.get("axis", 1)), stride, reach, pad


def _settings(layer: LayerCall, message: str) -> dict[str, Any]:
    """The layer's settings, given one by one or as a message."""
    return {**layer.settings, **layer.settings.get(message, {})}


def _number(layer: LayerCall, settings: dict[str, Any], name: str, default: int) -> Fraction:
    """A setting that is one number, or several equal ones."""
    given = settings.get(name, default)
    numbers = set(given) if isinstance(given, (list, tuple)) else {given}
    if len(numbers) > 1:
        raise UndefinedMapException(f"coord_map: {name} {given} of a {layer.kind} layer; wanted one number")
    return Fraction(numbers.pop() if numbers else default)
