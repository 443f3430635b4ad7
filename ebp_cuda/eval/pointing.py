"""The pointing game (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1).

For every class that an image shows, the method points at one pixel, the maximum of its attribution map. That is a
hit if a circle of some pixels about it meets any instance of the class. Accuracy is hits / (hits + misses).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, ShapeError

Map = torch.Tensor | NDArray[np.floating]


def maximum(attribution: Map) -> tuple[int, int]:
    """Row and column of the largest value of a map [H, W].

    Of equal values the first in row-major order, so a map that is the same everywhere, zeros included, points at
    (0, 0). Raises ShapeError for anything but two dims, InputError for NaN.
    """
    values = np.asarray(attribution.detach().cpu() if isinstance(attribution, torch.Tensor) else attribution)
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(f"attribution: one map [H, W] was wanted, got {list(values.shape)}")
    if np.isnan(values).any():
        raise InputError(f"attribution: {int(np.isnan(values).sum())} of {values.size} values are NaN")
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


def boxes_mask(boxes: Iterable[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Boxes (x0, y0, x1, y1) in pixels, x1 and y1 the first ones outside, as a bool mask of `size` = (H, W).

    A pixel that a box covers in part belongs to it; what lies outside the image is cut off.
    Raises InputError for a box without extent.
    """
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        x0, y0, x1, y1 = box
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"box {tuple(box)}: x0 < x1 and y0 < y1 were wanted")
        mask[max(math.floor(y0), 0) : max(math.ceil(y1), 0), max(math.floor(x0), 0) : max(math.ceil(x1), 0)] = True
    return mask


def distance_to(point: tuple[int, int], truth: NDArray[np.bool_]) -> float:
    """Pixels from `point` = (row, column) to the nearest True of `truth` (bool [H, W]), inf if none."""
    rows, columns = np.nonzero(truth)
    if not len(rows):
        return math.inf
    return math.sqrt(int(((rows - point[0]) ** 2 + (columns - point[1]) ** 2).min()))


def is_hit(point: tuple[int, int], truth: NDArray[np.bool_], tolerance: float, closed: bool = True) -> bool:
    """Whether a pixel of `truth` (bool [H, W]) lies in the circle of `tolerance` pixels about `point` = (row, column).

    closed: whether a pixel exactly on the circle counts. It does in the original evaluation, not in TorchRay's.
    """
    return within(distance_to(point, truth), tolerance, closed)


def within(distance: float, tolerance: float, closed: bool = True) -> bool:
    """Whether a pixel at that distance from the point counts as a hit."""
    return distance <= tolerance if closed else distance < tolerance


class PointingGame:
    """Counts hits and misses per class.

    tolerance: radius of the circle in pixels of the image, 15 in the paper (images of about 500 pixels); 0 asks for
    the very pixel. closed: see `is_hit`. Raises InputError for a negative radius.
    """

    def __init__(self, tolerance: float = 15, closed: bool = True) -> None:
        if not tolerance >= 0:
            raise InputError(f"tolerance {tolerance}: a number of pixels, 0 or more, was wanted")
        self.tolerance, self.closed = tolerance, closed
        self.hits: dict[int, int] = {}
        self.misses: dict[int, int] = {}

    def add(self, label: int, attribution: Map, truth: NDArray[np.bool_] | torch.Tensor) -> bool:
        """One trial; returns whether it was a hit.

        attribution: [H, W] at the size of the image (`ebp_cuda.images.maps.resize_maps`), signed values allowed.
        truth: bool [H, W], True on every instance of the class; `boxes_mask` makes one of boxes.
        Raises ShapeError where the two differ in size, InputError where the class is absent (no True): the game asks
        only for classes that the image shows.
        """
        mask = np.asarray(truth.cpu() if isinstance(truth, torch.Tensor) else truth).astype(bool)
        if tuple(mask.shape) != tuple(attribution.shape):
            raise ShapeError(
                f"class {label}: map {list(attribution.shape)} and truth {list(mask.shape)}, wanted the same size"
            )
        if not mask.any():
            raise InputError(f"class {label}: the image shows none of it, so there is nothing to point at")
        hit = is_hit(maximum(attribution), mask, self.tolerance, self.closed)
        self.count(label, hit)
        return hit

    def count(self, label: int, hit: bool) -> None:
        """Enters a trial that was judged before."""
        counts = self.hits if hit else self.misses
        counts[label] = counts.get(label, 0) + 1

    @property
    def trials(self) -> int:
        """How many pairs of image and class were asked."""
        return sum(self.hits.values()) + sum(self.misses.values())

    def trials_of(self, label: int) -> int:
        """How many trials asked for the class."""
        return self.hits.get(label, 0) + self.misses.get(label, 0)

    def accuracy(self) -> dict[int, float]:
        """Per class that was asked at least once, 0..1."""
        return {label: self.hits.get(label, 0) / self.trials_of(label) for label in sorted({*self.hits, *self.misses})}

    def mean_accuracy(self) -> float:
        """Mean of the classes' accuracies, as the paper reports; NaN before the first trial."""
        per_class = self.accuracy()
        return sum(per_class.values()) / len(per_class) if per_class else math.nan

    def overall_accuracy(self) -> float:
        """Hits over all trials, every trial counting the same; NaN before the first trial."""
        return sum(self.hits.values()) / self.trials if self.trials else math.nan
