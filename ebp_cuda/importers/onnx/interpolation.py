"""Where ONNX's Resize looks along one axis: which elements it picks, or by which weights it adds them.

The formulas are those of the operator's specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    """Attributes of a Resize that decide about coordinates and weights."""

    mode: str
    """"nearest", "linear" or "cubic"."""
    coordinates: str
    """coordinate_transformation_mode."""
    rounding: str = "round_prefer_floor"
    """nearest_mode."""
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def coordinates(
    settings: Settings, size: int, out: int, scale: float, roi: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """The place in an input axis of `size` that each of `out` outputs looks at.

    Args:
        settings: of the Resize.
        size: elements of the input axis.
        out: elements of the output axis.
        scale: as the operator was given it, or out / size.
        roi: the part of the axis that tf_crop_and_resize takes.
    """
    i = np.arange(out, dtype=np.float64)
    match settings.coordinates:
        case "half_pixel":
            return (i + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            offset = size / 2 * (1 - out / (scale * size))
            return offset + (i + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(1)
        case "align_corners":
            return i * (size - 1) / (scale * size - 1) if out > 1 else np.zeros(out)
        case "tf_crop_and_resize":
            start, end = roi
            if out == 1:
                return np.full(1, 0.5 * (start + end) * (size - 1))
            return start * (size - 1) + i * (end - start) * (size - 1) / (out - 1)
        case "tf_half_pixel_for_nn":
            return (i + 0.5) / scale
    return i / scale


def nearest(settings: Settings, places: np.ndarray, size: int) -> np.ndarray:
    """The element that each place is rounded to."""
    match settings.rounding:
        case "round_prefer_floor":
            rounded = np.ceil(places - 0.5)
        case "round_prefer_ceil":
            rounded = np.floor(places + 0.5)
        case "ceil":
            rounded = np.ceil(places)
        case _:
            rounded = np.floor(places)
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def weights(settings: Settings, places: np.ndarray, size: int, scale: float) -> np.ndarray:
    """The matrix [out, size] that linear or cubic interpolation at these places multiplies an axis with.

    What lies outside is the element at the edge, or nothing with `exclude_outside`. With `antialias` the kernel is
    stretched where the axis shrinks, so that every element of the input takes part.
    """
    stretch = min(scale, 1.0) if settings.antialias else 1.0
    reach = math.ceil((1 if settings.mode == "linear" else 2) / stretch)
    matrix = np.zeros((len(places), size))
    for row, place in enumerate(places):
        neighbors = np.arange(math.floor(place) - reach, math.floor(place) + reach + 2)
        values = _kernel(settings, (neighbors - place) * stretch)
        if settings.exclude_outside:
            values = np.where((neighbors < 0) | (neighbors >= size), 0, values)
        if settings.exclude_outside or settings.antialias:
            values = values / values.sum()
        np.add.at(matrix[row], np.clip(neighbors, 0, size - 1), values)
    return matrix


def _kernel(settings: Settings, distance: np.ndarray) -> np.ndarray:
    """How much an element at this distance counts."""
    d = np.abs(distance)
    if settings.mode == "linear":
        return np.maximum(1 - d, 0)
    a = settings.cubic_coeff_a  # Keys, 1981
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
