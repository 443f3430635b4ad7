"""The pointing game's "difficult" subset: small targets among other classes (paper, section 4.1).

A pair of picture and class is difficult where the class covers less than a quarter of the image and at least one other
class is present. TorchRay ships the original's lists for VOC07 and COCO in a text file, which `read_list` takes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import atomic_path
from .datasets.base import Picture, need_file

LARGEST_SHARE = 0.25


def is_difficult(picture: Picture, label: int, mask: NDArray[np.bool_]) -> bool:
    """Whether the pair belongs to the subset. mask: bool [H, W], True on every instance of the class."""
    return bool(mask.mean() < LARGEST_SHARE) and len(picture.labels) > 1


def read_list(path: Path, classes: int) -> dict[str, list[bool]]:
    """Picture name -> a flag for every class, from lines NAME, then 0 or 1 per class, with tabs between.

    Raises InputError for a line of another form.
    """
    need_file(path, "difficult list")
    flags = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, *cells = line.split("\t")
        if len(cells) != classes or any(cell.strip() not in ("0", "1") for cell in cells):
            raise InputError(
                f"{path}:{number}: {len(cells)} columns after '{name[:40]}', wanted {classes} of 0 or 1, tabs between"
            )
        flags[name] = [cell.strip() == "1" for cell in cells]
    return flags


def write_list(path: Path, flags: dict[str, list[bool]]) -> None:
    """The file that `read_list` reads."""
    lines = ["\t".join([name, *(str(int(flag)) for flag in row)]) for name, row in flags.items()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
