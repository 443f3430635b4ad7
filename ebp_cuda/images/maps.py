"""Attribution maps as pictures: resizing, overlays, figures.

Everything here is for the eye except `resize_maps`. Attribution maps themselves are raw: a contrastive map has
negative values and sums to about zero, and a picture of it shows its positive part, scaled to its own maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from PIL.PngImagePlugin import PngInfo

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


def heat(
    attribution: torch.Tensor | npt.NDArray[np.floating], size: tuple[int, int], smooth: float = 0.0
) -> npt.NDArray[np.float32]:
    """One map [h, w] made displayable: negative values to 0, bicubic to `size`, divided by its maximum; 0..1.

    A map with no positive value gives zeros. smooth: as of `overlay`.
    """
    tensor = torch.as_tensor(attribution, dtype=torch.float32)
    if tensor.ndim != 2:
        raise ShapeError(f"heat: one map [h, w] was wanted, got {list(tensor.shape)}")
    # clipped before as well: next to strong negative values bicubic overshoots into a false glow
    shown = resize_maps(tensor.clamp_min(0), size, "bicubic").clamp_min(0)
    shown = blurred(shown, smooth * max(size))
    peak = shown.max()
    return (shown / peak if peak > 0 else shown).numpy()


def blurred(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps [..., h, w] under a Gaussian of standard deviation `sigma` in pixels; edges are repeated outwards.

    Raises InputError for a negative or infinite sigma.
    """
    if not 0 <= sigma < float("inf"):
        raise InputError(f"smooth: a share of the picture's longer side, 0 or more, was wanted; got {sigma:g} pixels")
    radius = round(3 * sigma)
    if radius == 0:
        return maps
    steps = torch.arange(-radius, radius + 1, dtype=maps.dtype)
    bell = (-0.5 * (steps / sigma) ** 2).exp()
    bell = bell / bell.sum()
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), "replicate"), bell.view(1, 1, 1, -1))
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), "replicate"), bell.view(1, 1, -1, 1))
    return planes.reshape(maps.shape)


def overlay(
    image: npt.NDArray[np.generic],
    attribution: torch.Tensor | npt.NDArray[np.floating],
    *,
    colormap: str = "inferno",
    strength: float = 0.85,
    smooth: float = 0.0,
    negative: bool = False,
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: the photo, dimmed and greyed where attribution is low, glowing where it is high.

    `image` is uint8, or float in 0..1, [H, W, 3]; `attribution` is one map [h, w] of any resolution. For display
    only: negative attribution is clipped to 0 and the map is scaled by its own maximum, so brightness compares
    places within one map, not maps with each other. `smooth` blurs the map by a Gaussian of that share of the longer
    side (0.02, say, for a fine map of many dots). `negative`: what is below 0 shows in blue, at the same scale. Raises
    ShapeError for other shapes.
    """
    photo = _as_float(image)
    size = photo.shape[:2]
    if not negative:
        return _glowing(photo, heat(attribution, size, smooth), colormap, strength)
    tensor = torch.as_tensor(attribution, dtype=torch.float32)
    parts = [heat(part, size, smooth) * float(part.clamp_min(0).max()) for part in (tensor, -tensor)]
    peak = max(float(part.max()) for part in parts) or 1.0
    return _glowing(photo, parts[0] / peak, colormap, strength, against=parts[1] / peak)


def curve(
    signal: npt.NDArray[np.generic], attribution: torch.Tensor | npt.NDArray[np.floating], *, smooth: float = 0.0
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: a signal [C, L] or [L] as lines, on a ground that glows where its map [l] is high.

    For display only, as `overlay`. Raises ShapeError for other shapes.
    """
    lines = np.atleast_2d(np.asarray(signal, dtype=np.float32))
    row = torch.as_tensor(attribution, dtype=torch.float32)
    if lines.ndim != 2 or 0 in lines.shape or row.ndim != 1 or not len(row):
        raise ShapeError(f"curve: a signal [C, L] and a map [l] were wanted, got {lines.shape} and {list(row.shape)}")
    level = F.interpolate(row.clamp_min(0).view(1, 1, -1), size=lines.shape[1], mode="linear")
    level = blurred(level, smooth * lines.shape[1])[0]
    level = level / level.max().clamp_min(torch.finfo(torch.float32).tiny)
    drawn = Figure(figsize=(8, 2.4), dpi=120, facecolor="white")
    canvas = FigureCanvasAgg(drawn)
    axes = drawn.add_axes((0.06, 0.12, 0.92, 0.84))
    low, high = float(lines.min()), float(lines.max())
    margin = 0.05 * (high - low) or 1.0
    ends = (-0.5, lines.shape[1] - 0.5, low - margin, high + margin)
    axes.imshow(level.numpy(), cmap="YlOrRd", aspect="auto", extent=ends, vmin=0, vmax=1.2, alpha=0.85)
    for line in lines:
        axes.plot(line, linewidth=0.9, color="black" if len(lines) == 1 else None)
    axes.tick_params(labelsize=7)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def contact_sheet(
    frames: npt.NDArray[np.generic],
    attribution: torch.Tensor | npt.NDArray[np.floating],
    *,
    smooth: float = 0.0,
    most: int = 16,
) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: frames [T, H, W, 3] of a volume or video side by side under their map [t, h, w].

    At most `most` frames are shown, evenly spaced; the map is scaled by the maximum of all, so brightness compares
    frames. For display only, as `overlay`. Raises ShapeError for other shapes.
    """
    tensor = torch.as_tensor(attribution, dtype=torch.float32)
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape or tensor.ndim != 3 or 0 in tensor.shape:
        shapes = f"{list(frames.shape)} and {list(tensor.shape)}"
        raise ShapeError(f"contact_sheet: frames [T, H, W, 3] and a map [t, h, w] were wanted, got {shapes}")
    count, height, width = frames.shape[:3]
    shown = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    levels = F.interpolate(tensor.clamp_min(0)[None, None], size=(count, height, width), mode="trilinear")[0, 0]
    levels = blurred(levels[torch.from_numpy(shown)], smooth * max(height, width))
    levels = levels / levels.max().clamp_min(torch.finfo(torch.float32).tiny)
    columns = int(np.ceil(len(shown) ** 0.5 * (height / width) ** 0.5))
    sheet = np.full(
        (-(-len(shown) // columns) * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for place, (frame, level) in enumerate(zip(frames[shown], levels.numpy(), strict=True)):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = _glowing(_as_float(frame), level, "inferno", 0.85)
    return sheet


_GAP = 2
"""Pixels between the frames of a contact sheet."""


def draw(
    picture: npt.NDArray[np.generic],
    attribution: torch.Tensor | npt.NDArray[np.floating],
    *,
    smooth: float = 0.0,
    colormap: str = "inferno",
    negative: bool = False,
) -> npt.NDArray[np.uint8]:
    """The picture of a map of any kind: `overlay` of a plane [h, w], `curve` of [l], `contact_sheet` of [t, h, w].

    colormap and negative are those of `overlay`; the other two have colors of their own.
    """
    if attribution.ndim == 1:
        return curve(picture, attribution, smooth=smooth)
    if attribution.ndim == 3:
        return contact_sheet(picture, attribution, smooth=smooth)
    return overlay(picture, attribution, smooth=smooth, colormap=colormap, negative=negative)


AGAINST = (0.16, 0.43, 1.0)
"""The color, RGB in 0..1, of what speaks against a class."""


def _glowing(
    photo: npt.NDArray[np.float32],
    level: npt.NDArray[np.float32],
    colormap: str,
    strength: float,
    against: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.uint8]:
    """A photo, float [H, W, 3], under a level [H, W] in 0..1; where `against` is higher, under that in blue."""
    colors = matplotlib.colormaps[colormap](level)[..., :3]
    if against is not None:
        colors = np.where((against > level)[..., None], np.array(AGAINST), colors)
        level = np.maximum(level, against)
    grey = photo.mean(axis=2, keepdims=True)
    ground = 0.65 * (0.6 * grey + 0.4 * photo)
    cover = strength * level[..., None] ** 0.7
    return _as_uint8(ground * (1 - cover) + colors * cover)


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
        size = min(11, 116 * width / len(title))  # points; a bold letter is 0.62 of them wide
        drawn.text(gap / width, 1 - 0.1 / height, title, fontsize=size, fontweight="bold", va="top")
    return drawn


def save_figure(drawn: Figure, path: str | Path, words: Mapping[str, str] | None = None) -> Path:
    """Writes a figure as PNG, whole or not at all, with `words` as its text fields.

    Raises InputError where the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, format="png", metadata=dict(words or {}))
    return Path(path)


def save_image(image: npt.NDArray[np.uint8], path: str | Path, words: Mapping[str, str] | None = None) -> Path:
    """Writes uint8 [H, W, 3] as PNG, whole or not at all, with `words` as its text fields.

    Raises InputError where the folder cannot be written.
    """
    texts = PngInfo()
    for key, text in (words or {}).items():
        texts.add_itxt(key, text)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=texts)
    return Path(path)


def _as_float(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"overlay: an image [H, W, 3] was wanted, got {list(image.shape)}")
    values = image.astype(np.float32)
    return values / np.float32(255) if image.dtype == np.uint8 else np.clip(values, 0, 1)


def _as_uint8(image: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
