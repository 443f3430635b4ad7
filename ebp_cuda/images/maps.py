"""Attribution maps as pictures: resizing, overlays, figures.

Everything here is for the eye except `resize_maps`. Attribution maps themselves are raw: a contrastive map has
negative values and sums to about zero, and a picture of it shows its positive part, scaled to its own maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..errors import InputError, ShapeError
from ..files import atomic_path

MODES = ("bilinear", "bicubic")


def resize_maps(maps: torch.Tensor, size: tuple[int, int], mode: str = "bilinear") -> torch.Tensor:
    """Maps [..., h, w] interpolated to [..., *size], pixel centres aligned (corners are not); values stay raw.

    Bicubic overshoots: a map without negative values may gain small ones. float32 or float64, any device.
    Raises InputError for another mode or an empty size, ShapeError for fewer than two dims or an empty map.
    """
    if mode not in MODES:
        raise InputError(f"resize_maps: mode is one of {', '.join(MODES)}, not {mode!r}")
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"resize_maps: size is (height, width) in pixels, not {tuple(size)}")
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ShapeError(f"resize_maps: maps [..., h, w] were wanted, got {list(maps.shape)}")
    if 0 in maps.shape:
        return maps.new_zeros((*maps.shape[:-2], *size))
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(planes, size=tuple(size), mode=mode, align_corners=False)
    return resized.reshape(*maps.shape[:-2], *size)


def heat(attribution: torch.Tensor | npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """One map [h, w] made displayable: negative values to 0, bicubic to `size`, divided by its maximum; 0..1.

    A map with no positive value gives zeros.
    """
    tensor = torch.as_tensor(attribution, dtype=torch.float32)
    if tensor.ndim != 2:
        raise ShapeError(f"heat: one map [h, w] was wanted, got {list(tensor.shape)}")
    # clipped before as well: next to strong negative values bicubic overshoots into a false glow
    shown = resize_maps(tensor.clamp_min(0), size, "bicubic").clamp_min(0)
    peak = shown.max()
    return (shown / peak if peak > 0 else shown).numpy()


def overlay(
    image: npt.NDArray[np.generic],
    attribution: torch.Tensor | npt.NDArray[np.floating],
    *,
    colormap: str = "inferno",
    strength: float = 0.85,
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: the photo, dimmed and greyed where attribution is low, glowing where it is high.

    `image` is uint8, or float in 0..1, [H, W, 3]; `attribution` is one map [h, w] of any resolution. For display
    only: negative attribution is clipped to 0 and the map is scaled by its own maximum, so brightness compares
    places within one map, not maps with each other. Raises ShapeError for other shapes.
    """
    photo = _as_float(image)
    level = heat(attribution, photo.shape[:2])[..., None]
    colours = matplotlib.colormaps[colormap](level[..., 0])[..., :3]
    grey = photo.mean(axis=2, keepdims=True)
    ground = 0.65 * (0.6 * grey + 0.4 * photo)
    cover = strength * level**0.7
    return _as_uint8(ground * (1 - cover) + colours * cover)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure and the words above it."""

    image: npt.NDArray[np.generic]
    title: str


def figure(rows: Sequence[Sequence[Panel]], *, title: str = "", panel_width: float = 2.6) -> Figure:
    """A matplotlib figure: one row of panels under another, each panel with its own title.

    `panel_width` is in inches at 150 dots per inch; a row is as high as its tallest picture. Raises ShapeError
    where there is no panel.
    """
    if not rows or not all(rows):
        raise ShapeError("figure: every row needs at least one panel")
    columns = max(len(row) for row in rows)
    heights = [max(panel_width * p.image.shape[0] / p.image.shape[1] for p in row) for row in rows]
    head = [0.24 + 0.17 * max(p.title.count("\n") for p in row) for row in rows]
    top = 0.36 if title else 0.06
    gap = 0.1
    width = columns * panel_width + (columns + 1) * gap
    height = sum(heights) + sum(head) + gap * len(rows) + top
    drawn = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(drawn)
    y = height - top
    for row, row_height, row_head in zip(rows, heights, head, strict=True):
        y -= row_head + row_height
        for column, panel in enumerate(row):
            x = gap + column * (panel_width + gap)
            axes = drawn.add_axes((x / width, y / height, panel_width / width, row_height / height))
            axes.imshow(panel.image, interpolation="nearest", cmap="gray")
            axes.set_anchor("N")
            axes.set_axis_off()
            axes.set_title(panel.title, fontsize=9, pad=4)
        y -= gap
    if title:
        drawn.text(gap / width, 1 - 0.1 / height, title, fontsize=11, fontweight="bold", va="top")
    return drawn


def save_figure(drawn: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, whole or not at all. Raises InputError where the folder cannot be written."""
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, format="png")
    return Path(path)


def save_image(image: npt.NDArray[np.uint8], path: str | Path) -> Path:
    """Writes uint8 [H, W, 3] as PNG, whole or not at all. Raises InputError where the folder cannot be written."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
    return Path(path)


def _as_float(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"overlay: an image [H, W, 3] was wanted, got {list(image.shape)}")
    values = image.astype(np.float32)
    return values / np.float32(255) if image.dtype == np.uint8 else np.clip(values, 0, 1)


def _as_uint8(image: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
