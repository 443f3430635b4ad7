"""Boxes and how much they overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""[M, 4]: x0, y0, x1, y1 in pixels, x1 and y1 the first ones outside."""


def overlaps(boxes: Boxes, box: Sequence[float]) -> NDArray[np.float64]:
    """[M]: intersection over union of every box with one."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.maximum(high - low, 0).prod(1)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return np.asarray(shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + area - shared))
