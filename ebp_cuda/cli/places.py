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


@dataclass(frozen=True)
class Asking:
    """What is asked in place of a class, and against what."""

    PANEL: ClassVar[str] = "Question"

    similarity_to: Annotated[
        Path | None, option("--similarity-to", "FILE.npy", "an embedding [features] or [K, features], for --target")
    ] = None
    seed: Annotated[
        Path | None, option("--seed", "FILE.npy", "relevance of the top, [*top] or [K, *top], for --target")
    ] = None
    contrast: Annotated[
        str | None, option("--contrast", "KIND", "everything else | versus | mean | truncated (docs/questions.md)")
    ] = None
    other: Annotated[
        str | None, option("--other", "CLASS|FILE.npy", "what versus and truncated subtract: a class, or an array")
    ] = None
    percentile: Annotated[
        float | None, option("--percentile", "PERCENT", "truncated: mass of the class that is cut off; else 20")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The keywords of `batch.photos.attribute`. Raises InputError."""
        other: Any = self.other
        if other is not None and other.endswith(".npy"):
            other = read_array("--other", Path(other))
        named: dict[str, Any] = {
            "similarity_to": None if self.similarity_to is None else read_array("--similarity-to", self.similarity_to),
            "seed": None if self.seed is None else read_array("--seed", self.seed),
            "contrast": self.contrast,
            "other": other,
            "percentile": self.percentile,
        }
        return {key: value for key, value in named.items() if value is not None}


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
