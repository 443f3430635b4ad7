"""Scenes of several handwritten digits on photographic textures, with the place of every digit known.

The digits are scikit-learn's UCI digits (8x8 real handwriting, 1797 of them), the textures are cut from photos
that scikit-image ships. Digits are split by index and textures by photo, so that the "test" split shows no digit
and no photo that the "train" split does. A scene depends on its split, seed and index alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebp_cuda.errors import InputError, UnsupportedError

SIZE = 112
"""Height and width of a scene in pixels."""
CLASSES = 10

PHOTOS = {
    "train": ("coffee", "chelsea", "brick", "grass", "camera", "stereo_motorcycle"),
    "test": ("astronaut", "rocket", "gravel", "immunohistochemistry"),
}
FIRST_TEST_DIGIT = 1200
"""Digits of a lower index are for training. The set is ordered by writer, so this nearly separates writers too."""

_DIGIT_SIDE = (20, 40)
_MIN_SIZE = 48
_MAX_OVERLAP = 0.05
_PLACE_ATTEMPTS = 30
_MIN_CONTRAST = 45.0


@dataclass(frozen=True)
class PlacedDigit:
    """One digit of a scene."""

    label: int
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""
    mask: NDArray[np.bool_]
    """bool [H, W], True on the strokes that can be seen."""
    source: int
    """Index in scikit-learn's digits."""


@dataclass(frozen=True)
class Scene:
    """image: uint8 [H, W, 3], RGB. digits: in the order in which they were pasted."""

    image: NDArray[np.uint8]
    digits: tuple[PlacedDigit, ...]

    @property
    def labels(self) -> list[int]:
        """The classes present, ascending, each once."""
        return sorted({digit.label for digit in self.digits})

    def mask_of(self, label: int) -> NDArray[np.bool_]:
        """bool [H, W]: the strokes of every digit of the class; all False where the class is absent."""
        mask = np.zeros(self.image.shape[:2], dtype=bool)
        for digit in self.digits:
            if digit.label == label:
                mask |= digit.mask
        return mask


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UnsupportedError("digit scenes need scikit-learn: pip install scikit-learn") from error
    data = load_digits()
    return (data.images * 255 / 16).round().astype(np.uint8), data.target.astype(np.int64)


@cache
def _photo(name: str) -> Image.Image:
    try:
        from skimage import data
    except ImportError as error:
        raise UnsupportedError("digit scenes need scikit-image: pip install scikit-image") from error
    loaded = getattr(data, name)()
    array = loaded[0] if isinstance(loaded, tuple) else loaded
    return Image.fromarray(array).convert("RGB")


def _check_split(split: str) -> None:
    if split not in PHOTOS:
        raise InputError(f"split '{split}': wanted one of {', '.join(PHOTOS)}")


def digit_indices(split: str) -> range:
    """The indices of scikit-learn's digits that the split may show. Raises InputError for an unknown split."""
    _check_split(split)
    return range(FIRST_TEST_DIGIT) if split == "train" else range(FIRST_TEST_DIGIT, len(_digits()[0]))


def make_scene(split: str, seed: int, index: int, count: int | None = None, size: int = SIZE) -> Scene:
    """Scene number `index` of a seed, `size` pixels high and wide, at least 48.

    count: how many digits to place, 1 to 5 at random by default. A digit that finds no free place after some attempts
    is left out, the first one never is.
    Raises InputError for an unknown split or a small size, UnsupportedError where scikit-learn or scikit-image is
    missing.
    """
    _check_split(split)
    if size < _MIN_SIZE:
        raise InputError(f"scene of {size} pixels: at least {_MIN_SIZE} were wanted, so that every digit fits")
    rng = np.random.default_rng([sorted(PHOTOS).index(split), seed, index])
    canvas = _texture(split, size, rng)
    indices = digit_indices(split)
    placed: list[tuple[int, tuple[int, int, int, int], NDArray[np.bool_], int]] = []
    for _ in range(int(rng.integers(1, 6)) if count is None else count):
        source = int(rng.integers(indices.start, indices.stop))
        alpha = _stroke(source, rng)
        box = _place(alpha.shape, size, [other[1] for other in placed], rng)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        patch = canvas[y0:y1, x0:x1]
        patch += alpha[..., None] * (_ink(patch, rng) - patch)
        mask = np.zeros((size, size), dtype=bool)
        mask[y0:y1, x0:x1] = alpha > 0.4
        placed = [(label, other, seen & ~mask, origin) for label, other, seen, origin in placed]
        placed.append((int(_digits()[1][source]), box, mask, source))
    canvas += rng.normal(0, rng.uniform(0, 6), canvas.shape)
    image = canvas.clip(0, 255).astype(np.uint8)
    return Scene(image, tuple(PlacedDigit(*entry) for entry in placed))


def held_out_scenes(n: int = 200, seed: int = 0) -> Iterator[Scene]:
    """`n` scenes of digits and photos that training never showed."""
    for index in range(n):
        yield make_scene("test", seed, index)


def _texture(split: str, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A square cut of random place and scale, float32 [size, size, 3], of random contrast and brightness."""
    photo = _photo(PHOTOS[split][int(rng.integers(len(PHOTOS[split])))])
    side = int(rng.integers(size // 2, min(photo.size) + 1))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photo.size)
    cut = photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    canvas = np.asarray(cut, dtype=np.float32)
    if rng.random() < 0.5:
        canvas = canvas[:, ::-1]
    mean = canvas.mean((0, 1))
    tint = rng.normal(0, 20, 3).astype(np.float32)
    return (canvas - mean) * np.float32(rng.uniform(0.3, 1)) + mean + tint


def _stroke(source: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Opacity of a digit at a random size, slant and turn, float32 [h, w] in 0..1, cut to its ink."""
    side = int(rng.integers(_DIGIT_SIDE[0], _DIGIT_SIDE[1] + 1))
    width = round(side * rng.uniform(0.75, 1.05))
    glyph = Image.fromarray(np.pad(_digits()[0][source], 1)).resize((width, side), Image.Resampling.BICUBIC)
    glyph = glyph.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    soft = np.asarray(glyph, dtype=np.float32) / 255
    alpha: NDArray[np.float32] = ((soft - 0.2) / 0.5).clip(0, 1).astype(np.float32)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    shape: tuple[int, ...], size: int, taken: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box of the given height and width that hardly covers the boxes taken, or None where none was found."""
    height, width = shape
    for _ in range(_PLACE_ATTEMPTS):
        x0, y0 = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
        box = (x0, y0, x0 + width, y0 + height)
        if all(_shared_area(box, other) <= _MAX_OVERLAP * height * width for other in taken):
            return box
    return None


def _shared_area(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _ink(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A color, float32 [3], whose brightness differs enough from that of the background."""
    background = float(patch.mean())
    while True:
        color = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float(color.mean()) - background) >= _MIN_CONTRAST:
            return color
