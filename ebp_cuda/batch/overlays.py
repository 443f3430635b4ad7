"""The pictures of a run: one per image, class and layer, and sheets of all classes of an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import cut_name
from ..images.annotation import Look
from ..images.maps import Panel, save_figure, save_image
from ..questions.question import NO_CLASS
from ..targets import class_name
from .photos import NAME_BYTES, Inputs, Result

_PLAIN = Look()


def write_overlays(
    result: Result,
    inputs: Inputs,
    labels: Sequence[str] | None,
    folder: Path,
    *,
    look: Look = _PLAIN,
) -> list[Path]:
    """One PNG per image, class and layer, whose text fields say by what it was computed.

    FOLDER/NAME_INDEX_CLASS.png, of several layers FOLDER/NAME_INDEX_CLASS_LAYER.png; makes the folder. A sheet, where
    the look asks for it, is FOLDER/NAME_sheet.png, of several layers FOLDER/NAME_sheet_LAYER.png.

    Raises:
        InputError: where it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--overlay {folder}: the folder cannot be made: {error.strerror}") from error
    written = []
    for layer, layer_maps in result.by_layer.items():
        words = {**result.setting.words(), "layer": layer}
        suffix = _for_a_file(layer if isinstance(result.maps, dict) else "")
        for n, (picture, name, maps) in enumerate(zip(inputs.pictures, inputs.names, layer_maps, strict=True)):
            panels = []
            for column, attribution in enumerate(maps):
                number, title = _named(result, n, column, labels)
                path = _path(folder, name, number, _for_a_file(title), suffix)
                image, facts = look.of(picture, attribution), {**words, "class": f"{number} {title}".strip()}
                if not (look.annotate or look.sheet):
                    written.append(save_image(image, path, facts))
                    continue
                panels.append(Panel(image, f"{title or number}{_score(result, n, column)}"))
                if look.annotate:
                    drawn = look.panels([Panel(image, f"{panels[-1].title}\n{layer}")], _peak(attribution, look))
                    written.append(save_figure(drawn, path, facts))
                else:
                    written.append(save_image(image, path, facts))
            if look.sheet:
                plain = [Panel(picture, name)] if picture.ndim == 3 else []
                drawn = look.panels([*plain, *panels], _peak(maps, look), title=str(result.setting))
                written.append(save_figure(drawn, _path(folder, name, "sheet", suffix), words))
    return written


def _named(result: Result, image: int, column: int, labels: Sequence[str] | None) -> tuple[str, str]:
    """The number of a column's class and its name; of an embedding or a seed, which is no class, "columnK" and ""."""
    index = int(result.targets[image, column])
    if index == NO_CLASS:
        return f"column{column}", ""
    return str(index), class_name(index, labels) if labels else ""


def _score(result: Result, image: int, column: int) -> str:
    index = result.targets[image, column]
    return "" if index == NO_CLASS else f"  {result.scores[image, index]:.4g}"


def _path(folder: Path, *parts: str) -> Path:
    return folder / ("_".join(part for part in parts if part) + ".png")


def _peak(maps: npt.NDArray[np.floating], look: Look) -> float:
    """The number that the end of a color bar stands for."""
    return max(0.0, float(np.abs(maps).max() if look.negative else maps.max()))


def _for_a_file(title: str) -> str:
    return cut_name(re.sub(r"[^\w.-]+", "-", title), NAME_BYTES)
