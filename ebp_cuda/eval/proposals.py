"""Region proposals ranked by a map: which boxes hold most of it for their size (paper, section 4.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .boxes import Boxes, overlaps
from .datasets.base import need_file

_SCALES = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
_ASPECTS = (0.5, 1.0, 2.0)


def grid(size: tuple[int, int]) -> Boxes:
    """Boxes of six scales and three aspect ratios on a grid, for a picture of `size` = (height, width)."""
    height, width = size
    boxes = {(0.0, 0.0, float(width), float(height))}
    for scale in _SCALES:
        for aspect in _ASPECTS:
            h, w = min(height, scale * height / aspect**0.5), min(width, scale * width * aspect**0.5)
            for y in np.linspace(0, height - h, max(1, round(4 * (height - h) / h) + 1)):
                for x in np.linspace(0, width - w, max(1, round(4 * (width - w) / w) + 1)):
                    boxes.add(tuple(round(float(v), 2) for v in (x, y, x + w, y + h)))  # type: ignore[arg-type]
    return np.array(sorted(boxes))


def read_proposals(path: Path) -> Mapping[str, Boxes]:
    """Proposals of a user: .npz with an array [M, 4] per picture name, or .json with lists. Raises InputError."""
    need_file(path, "--proposals")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                proposals = {name: np.asarray(archive[name], dtype=np.float64) for name in archive.files}
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            proposals = {name: np.asarray(boxes, dtype=np.float64) for name, boxes in content.items()}
    except (ValueError, OSError, AttributeError, TypeError) as error:
        raise InputError(f"--proposals {path}: neither .npz nor .json of boxes by picture name: {error}") from error
    for name, boxes in proposals.items():
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes[:, :2] < boxes[:, 2:]).all():
            raise InputError(f"--proposals {path}: '{name}' has shape {list(boxes.shape)}; wanted [M, 4] x0 y0 x1 y1")
    return proposals


def scores(attribution: NDArray[np.floating], boxes: Boxes, gamma: float) -> NDArray[np.float64]:
    """[M]: the sum of the positive map [H, W] in every box, over the box's area to the power gamma.

    Boxes are rounded to pixels; one without a pixel scores 0.
    """
    height, width = attribution.shape
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = np.maximum(attribution, 0).cumsum(0).cumsum(1)
    x0, x1 = (np.clip(np.rint(boxes[:, c]), 0, width).astype(int) for c in (0, 2))
    y0, y1 = (np.clip(np.rint(boxes[:, c]), 0, height).astype(int) for c in (1, 3))
    inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    area = (x1 - x0) * (y1 - y0)
    return np.where(area > 0, inside / np.maximum(area, 1) ** gamma, 0.0)


def best(attribution: NDArray[np.floating], boxes: Boxes, gamma: float, count: int, apart: float) -> Boxes:
    """The `count` boxes of the highest scores, first to last; none overlaps an earlier one by more than `apart`."""
    kept: list[int] = []
    for index in np.argsort(-scores(attribution, boxes, gamma), kind="stable"):
        one = tuple(boxes[index])
        if not kept or overlaps(boxes[kept], one).max() <= apart:
            kept.append(int(index))
        if len(kept) == count:
            break
    return boxes[kept]
