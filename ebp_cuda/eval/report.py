"""What an evaluation shows: tables on the terminal, and the worst misses as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..extras import require
from ..images.maps import Panel, figure, overlay, save_figure
from ..images.preprocess import Preprocess
from ..net import Net
from .datasets.base import Picture
from .inputs import photo, read
from .methods import Method
from .records import Row

_COLUMNS = 4


def print_table(title: str, rows: Sequence[Mapping[str, Any]], digits: int = 1) -> None:
    """The rows as a table; columns in which nothing is known are left out."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    columns = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    table = Table(box=None, pad_edge=False)
    for index, key in enumerate(columns):
        table.add_column(key.replace("_", " "), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(_cell(row[key], digits) for key in columns))
    console = Console(width=160)
    console.print(title, highlight=False)
    console.print(table)


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def worst_misses(rows: Sequence[Row], method: str, count: int) -> list[Row]:
    """The misses of a method whose point lies farthest from the class, as a part of what the class covers is not."""
    misses = [row for row in rows if row["method"] == method and not row["hit"]]
    return sorted(misses, key=lambda row: (-row["distance"], row["image"], row["label"]))[:count]


def draw_misses(
    rows: Sequence[Row],
    pictures: Mapping[str, Picture],
    net: Net,
    method: Method,
    how: Preprocess,
    outputs: Sequence[int],
    tolerance: float,
    path: Path,
) -> Path:
    """A PNG with one panel for every row: the map over the picture, the class outlined, the point and its circle."""
    panels = []
    for row in rows:
        picture = pictures[row["image"]]
        x = read(picture, how, net)
        attribution = method.maps(x, torch.tensor([[outputs[row["label"]]]]))[0, 0]
        shown = _marked(overlay(photo(picture), attribution), picture.mask_of(row["label"]), row, tolerance)
        panels.append(Panel(shown, f"{row['class']}, {row['distance']:.0f} px off\n{row['image']}"))
    grid = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    return save_figure(figure(grid, title=f"{method.name}: the worst misses"), path)


def _marked(image: NDArray[np.uint8], truth: NDArray[np.bool_], row: Row, tolerance: float) -> NDArray[np.uint8]:
    width = max(1, round(max(truth.shape) / 200))  # thin lines are lost where the panel shows fewer pixels
    inner = require("scipy.ndimage", "eval", "outlines").binary_erosion(truth, iterations=width, border_value=False)
    edged = image.copy()
    edged[truth & ~inner] = (0, 255, 120)
    drawn = Image.fromarray(edged)
    x, y, pen = row["column"], row["row"], ImageDraw.Draw(drawn)
    for radius in (tolerance, width):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(80, 200, 255), width=width)
    return np.asarray(drawn)
