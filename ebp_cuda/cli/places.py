"""The options that name a place of a plane, which several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ..errors import InputError
from .options import option

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Place:
    """A pixel, a box or a mask."""

    PANEL: ClassVar[str] = "Place"

    pixel: Annotated[str | None, option("--pixel", "ROW,COLUMN", "a position of the plane, counted from 0")] = None
    box: Annotated[
        str | None, option("--box", "TOP,LEFT,BOTTOM,RIGHT", "bottom and right lie behind the last position")
    ] = None
    mask: Annotated[Path | None, option("--mask", "FILE.npy", "a weight for every position of the plane")] = None

    def arguments(self) -> dict[str, Any]:
        """The one that was given, as the argument `pixel`, `box` or `mask` of a method; none where none was."""
        named = {
            "pixel": read_numbers("--pixel", self.pixel),
            "box": read_numbers("--box", self.box),
            "mask": None if self.mask is None else read_array("--mask", self.mask),
        }
        asked = {name: value for name, value in named.items() if value is not None}
        if len(asked) > 1:
            raise InputError(f"got {' and '.join(f'--{name}' for name in asked)}; wanted one of --pixel, --box, --mask")
        return asked


def read_numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    """The whole numbers of "3,4"; None stays None. Raises InputError."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise InputError(f"{name} {text!r}: wanted whole numbers with commas between, such as 3,4")
    return tuple(int(part) for part in parts)


def read_array(name: str, path: Path) -> np.ndarray[Any, Any]:
    """The array in a .npy file. Raises InputError."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{name} {path}: not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} {path}: holds several arrays; wanted a .npy file with one")
    return array
