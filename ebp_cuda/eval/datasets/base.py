"""What every data set becomes: pictures with labeled instances; and the checks that their readers share."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, nearest_names
from ..pointing import boxes_mask

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""


@dataclass(frozen=True)
class Instance:
    """One annotated object."""

    label: int
    """Index of its class in the data set."""
    box: Box
    difficult: bool = False
    """The annotators' flag (VOC), not the "difficult" subset of the pointing game."""
    draw: Callable[[], NDArray[np.bool_]] | None = None
    """Gives its mask, bool [H, W]; None where the box is all that is known."""


@dataclass(frozen=True)
class Picture:
    """An image and what is annotated on it."""

    name: str
    """File name without suffix, unique in the set."""
    path: Path
    size: tuple[int, int]
    """(height, width) in pixels, as annotated."""
    instances: tuple[Instance, ...]

    @property
    def labels(self) -> list[int]:
        """The classes present, ascending, each once."""
        return sorted({instance.label for instance in self.instances})

    def of(self, label: int) -> list[Instance]:
        """The instances of a class."""
        return [instance for instance in self.instances if instance.label == label]

    def mask_of(self, label: int) -> NDArray[np.bool_]:
        """bool [H, W], True on every instance of the class: its mask, or its box where there is none."""
        mask = np.zeros(self.size, dtype=bool)
        for instance in self.of(label):
            mask |= boxes_mask([instance.box], self.size) if instance.draw is None else instance.draw()
        return mask


def need_folder(path: Path, what: str) -> Path:
    """`path` if it is a folder. Raises InputError that says what was expected there."""
    if not path.is_dir():
        raise InputError(f"{what}: no folder {path}{_present(path)}")
    return path


def need_file(path: Path, what: str) -> Path:
    """`path` if it is a file. Raises InputError that says what was expected there."""
    if not path.is_file():
        raise InputError(f"{what}: no file {path}{_present(path)}")
    return path


def first_existing(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of the paths under `root` that exists. Raises InputError that lists all of them."""
    need_folder(root, what)
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    raise InputError(f"{what}: none of {', '.join(candidates)} in {root}{_present(root / candidates[0])}")


def need_images(pictures: Iterable[Picture], what: str) -> list[Picture]:
    """The pictures, if every image file is there. Raises InputError that counts and names the missing ones."""
    every = list(pictures)
    if not every:
        raise InputError(f"{what}: no annotated picture")
    missing = [picture.path for picture in every if not picture.path.is_file()]
    if missing:
        raise InputError(
            f"{what}: {len(missing)} of {len(every)} images are missing, the first is {missing[0]}; "
            "was the archive unpacked whole?"
        )
    return every


def read_names(path: Path, what: str) -> list[str]:
    """The first word of every line that is not empty."""
    need_file(path, what)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what}: {path} cannot be read as text: {error}") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise InputError(f"{what}: {path} lists nothing")
    return names


def read_xml(path: Path, what: str) -> ElementTree.Element:
    """The root of an annotation file. Raises InputError for one that is missing or cut off."""
    need_file(path, what)
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"{what}: {path} is not a whole XML file: {error}") from error


def text_of(element: ElementTree.Element, name: str, path: Path) -> str:
    """The text of a descendant. Raises InputError where it is missing."""
    text = element.findtext(name)
    if text is None or not text.strip():
        raise InputError(f"{path}: <{element.tag}> without <{name}>")
    return text.strip()


def number_of(element: ElementTree.Element, name: str, path: Path) -> float:
    """The number in a descendant. Raises InputError where there is none."""
    text = text_of(element, name, path)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: <{name}> is {text!r}, a number was wanted") from None


def corners_of(element: ElementTree.Element, path: Path) -> Box:
    """xmin, ymin, xmax, ymax of a <bndbox>, as written. Raises InputError for a box without extent."""
    x0, y0, x1, y1 = (number_of(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x1 < x0 or y1 < y0:
        raise InputError(f"{path}: box {x0:g}, {y0:g}, {x1:g}, {y1:g}: xmin <= xmax and ymin <= ymax were wanted")
    return x0, y0, x1, y1


def size_of(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    """(height, width) of an annotation's <size>."""
    height, width = (int(number_of(root, f"size/{name}", path)) for name in ("height", "width"))
    if height < 1 or width < 1:
        raise InputError(f"{path}: <size> is {width} x {height}; a picture's was wanted")
    return height, width


def label_index(name: str, known: dict[str, int], path: Path) -> int:
    """The index of a class name. Raises InputError for an unknown one."""
    if name not in known:
        raise InputError(f"{path}: unknown class '{name}'{nearest_names(name, known)}")
    return known[name]


def _present(path: Path) -> str:
    """What is there instead: the nearest folder above that exists, and a few of its entries."""
    above = next((folder for folder in path.parents if folder.is_dir()), None)
    if above is None:
        return ""
    entries = sorted(entry.name for entry in above.iterdir())[:6]
    return f" ({above} holds {', '.join(entries) if entries else 'nothing'})"
