"""Photos out of files, held as Pillow holds them until they have the size that somebody wants.

A photo of 8 bits stays 8 bits while it is decoded, turned and resized, so that it takes at most 8 bytes a pixel; 16-bit
and float photos keep their values. How many pixels one may have is a limit, checked before any pixel is decoded.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from ..files import open_regular, refused_unless_readable

MAX_PIXELS = 178_956_970
"""Pixels that a photo may have where nothing else is said: 13,377 x 13,377, which Pillow refuses to exceed too."""

_STRIP = 1 << 22
"""Pixels that are laid on white at a time."""

_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Decoding:
    """How photos are decoded; it decides pixels, so the manifest of a run holds it."""

    max_pixels: int = MAX_PIXELS
    """A photo of more is refused."""
    fast: bool = False
    """Large photos are decoded and reduced at a fraction of their size before the resampling that is exact otherwise:
    several times faster, and pixels move by up to 19/255."""

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise InputError(f"max_pixels is a positive number of pixels, not {self.max_pixels}")


EXACT = Decoding()


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright: RGB or grey of 8 bits, or grey float32 in 0..1 (mode "RGB", "L" or "F")."""

    image: Image.Image
    size: tuple[int, int]
    """(height, width) in pixels as the file has them; fast decoding may have made `image` smaller."""
    fast: bool = False
    """As in `Decoding`."""

    @classmethod
    def of_array(cls, pixels: npt.NDArray[np.uint8]) -> Photo:
        """A photo of pixels [H, W, 3]; grey where all channels are one in memory."""
        shown = pixels if pixels.strides[2] else pixels[..., 0]
        return cls(Image.fromarray(np.ascontiguousarray(shown)), (pixels.shape[0], pixels.shape[1]))

    def pixels(
        self, size: tuple[int, int] | None = None, resampling: Image.Resampling = Image.Resampling.BILINEAR
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """[H, W, 3] at `size` (height, width), by default its own: uint8, or float32 in 0..1. Read-only where grey."""
        image, size = self.image, size or self.size
        if size != (image.height, image.width):
            gap = 2.0 if self.fast else None
            image = image.resize((size[1], size[0]), resampling, reducing_gap=gap)
        values = np.asarray(image)
        if image.mode == "F":
            values = np.clip(values, 0, 1)  # bicubic overshoots
        return values if image.mode == "RGB" else np.broadcast_to(values[..., None], (*values.shape, 3))


def open_photo(
    path: str | Path,
    data: bytes | None = None,
    *,
    upright: bool = True,
    decoding: Decoding = EXACT,
    size_wanted: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Photo:
    """The photo in a file, of any format that Pillow reads.

    Grey stays one channel, transparency is laid on white, 16-bit grey is scaled by 65535.

    Args:
        path: the file; where `data` is given, its name in errors.
        data: the file's content, where it has been read already.
        upright: turned by its EXIF orientation; False where annotations count pixels as they are stored.
        decoding: the pixel limit, and whether fast decoding is wanted.
        size_wanted: (height, width) of the photo -> the size that will be asked of it. With fast decoding a JPEG of
            more than twice that is decoded at a half, a quarter or an eighth.

    Raises:
        InputError: the file is missing, no image, damaged, or has more pixels than the limit.
    """
    with (
        refused_unless_readable(path, "the image cannot be read"),
        open_regular(path) if data is None else io.BytesIO(data) as file,
    ):
        try:
            with _pixel_limit(decoding.max_pixels), Image.open(file) as opened:
                _check_pixels(path, opened, decoding.max_pixels)
                stored = opened.width, opened.height
                if decoding.fast and size_wanted is not None:
                    _draft(opened, size_wanted(stored[::-1]))
                opened.load()
                decoded = opened.size
                if upright:
                    ImageOps.exif_transpose(opened, in_place=True)
                size = opened.size
                if decoded != stored:  # at a fraction; as square as the photo, or turned as it is
                    size = stored if size == decoded else stored[::-1]
                return Photo(_plain(opened, path), size[::-1], decoding.fast)
        except UnidentifiedImageError as error:
            raise InputError(f"{path}: not an image that Pillow reads (arrays are read from .npy)") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"{path}: more than the {decoding.max_pixels} pixels of --max-pixels") from error


def _check_pixels(path: str | Path, image: Image.Image, limit: int) -> None:
    if image.width * image.height > limit:
        count = f"{image.width} x {image.height} = {image.width * image.height} pixels"
        raise InputError(f"{path}: {count}, more than the {limit} of --max-pixels")


@contextmanager
def _pixel_limit(limit: int) -> Iterator[None]:
    """Lifts Pillow's own limit, a variable of the process, where more is allowed here."""
    own = Image.MAX_IMAGE_PIXELS
    if own is None or limit <= 2 * own:
        yield
        return
    with _PILLOW_LIMIT:
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = own


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """Has a JPEG decoded at a fraction that leaves at least twice the size on either side, however it is turned."""
    side = 2 * max(size)
    image.draft(None, (side, side))


def _plain(image: Image.Image, path: str | Path) -> Image.Image:
    """The image in one of the three modes of `Photo`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _unit_grey(image, path)
    if image.has_transparency_data:
        return _on_white(image)
    wanted = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _unit_grey(image: Image.Image, path: str | Path) -> Image.Image:
    grey = np.asarray(image, dtype=np.float32)
    if image.mode != "F":
        grey = grey / np.float32(65535)
    if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
        raise InputError(f"{path}: grey values outside 0..1 (mode {image.mode}); pass such data as .npy")
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    """What shows where a transparent image lies on white; a strip at a time, since each takes four copies."""
    laid = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        laid.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return laid
