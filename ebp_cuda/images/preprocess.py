"""From a photo to the tensor that a network wants, and back to a picture for display.

One description, `Preprocess`, says it for every model: the image is resized, its channels are put in order, and
x = (image * raw_scale - mean) / std with image in 0..1. Caffe's models want BGR, raw_scale 255 and a mean of about
(104, 117, 123); torchvision's want RGB, raw_scale 1, mean and std of ImageNet.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, ShapeError, nearest_names

Array = npt.NDArray[np.float32]

_CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's and OpenCV's conversion to grey


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes a network's input; the same fields as the model metadata "ebp_cuda.preprocess".

    At most one of `size` and `shortest_side` is set; with neither, photos keep their size.
    Raises InputError for a value that cannot be used, naming the field.
    """

    size: tuple[int, int] | None = None
    """(height, width) in pixels, aspect ratio not kept."""
    shortest_side: int | None = None
    """Pixels of the shorter side, aspect ratio kept."""
    channel_order: str = "RGB"
    """"RGB", "BGR", or "GRAY" for networks of one input channel."""
    raw_scale: float = 1.0
    """Value of full white before the mean is taken: 255 or 1."""
    mean: tuple[float, ...] = (0.0,)
    """One number for all channels, or one for each in channel_order; in units of raw_scale."""
    std: tuple[float, ...] = (1.0,)
    """As `mean`; the divisor after it is subtracted."""
    interpolation: str = "bilinear"
    """Pillow's filter for resizing, "bilinear" or "bicubic"; both are antialiased."""

    def __post_init__(self) -> None:
        if self.channel_order not in _CHANNELS:
            raise InputError(f"preprocess: channel_order is one of {', '.join(_CHANNELS)}, not {self.channel_order!r}")
        if self.interpolation not in _FILTERS:
            raise InputError(f"preprocess: interpolation is one of {', '.join(_FILTERS)}, not {self.interpolation!r}")
        if self.size is not None and self.shortest_side is not None:
            raise InputError("preprocess: give size or shortest_side, not both")
        if self.size is not None:
            object.__setattr__(self, "size", _pixels("size", self.size, 2))
        if self.shortest_side is not None:
            object.__setattr__(self, "shortest_side", _pixels("shortest_side", (self.shortest_side,), 1)[0])
        object.__setattr__(self, "raw_scale", _numbers("raw_scale", (self.raw_scale,), 1, positive=True)[0])
        object.__setattr__(self, "mean", _numbers("mean", self.mean, self.channels))
        object.__setattr__(self, "std", _numbers("std", self.std, self.channels, positive=True))

    @property
    def channels(self) -> int:
        """Input channels of the network: 3, or 1 for "GRAY"."""
        return _CHANNELS[self.channel_order]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Preprocess:
        """The dataclass of a metadata dict; None or missing keys give the defaults. Unknown keys raise InputError."""
        values = dict(values or {})
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"preprocess: no field {key!r}{nearest_names(key, known)}")
        return cls(**{key: value for key, value in values.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """The metadata dict, made of JSON values only; mean and std have one entry per channel."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def override(self, **changes: Any) -> Preprocess:
        """A copy with the given fields changed; None means unchanged, and size and shortest_side replace each other.

        Where the number of channels changes, a mean or std that was the same for all channels follows.
        """
        changes = {key: value for key, value in changes.items() if value is not None}
        for key, other in (("size", "shortest_side"), ("shortest_side", "size")):
            if key in changes and other not in changes:
                changes[other] = None
        for key in ("mean", "std"):
            if "channel_order" in changes and len(set(getattr(self, key))) == 1:
                changes.setdefault(key, getattr(self, key)[:1])
        return replace(self, **changes)

    def resize(self, image: Array) -> Array:
        """`image`, float [H, W, 3], at the size the network is to see, clipped to 0..1."""
        height, width = image.shape[:2]
        if self.size is not None:
            target = self.size
        elif self.shortest_side is not None:
            factor = self.shortest_side / min(height, width)
            target = (max(1, round(height * factor)), max(1, round(width * factor)))
        else:
            target = (height, width)
        if target == (height, width):
            return image
        planes = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
        resized = [np.asarray(p.resize((target[1], target[0]), _FILTERS[self.interpolation])) for p in planes]
        return np.clip(np.stack(resized, axis=-1), 0, 1).astype(np.float32)

    def normalise(self, image: Array) -> Array:
        """float32 [C, H, W] for the network from an RGB image float [H, W, 3] in 0..1, without resizing."""
        if self.channel_order == "GRAY":
            image = (image @ _LUMA)[..., None]
        elif self.channel_order == "BGR":
            image = image[..., ::-1]
        x = (image * self.raw_scale - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)

    def picture(self, x: Array) -> Array:
        """The RGB image, float [H, W, 3] clipped to 0..1, that a network input [C, H, W] shows: `normalise` undone.

        Raises ShapeError where the number of channels is another.
        """
        if x.ndim != 3 or x.shape[0] != self.channels:
            raise ShapeError(f"preprocess: an input [{self.channels}, H, W] was wanted, got {list(x.shape)}")
        image = (x.transpose(1, 2, 0) * np.array(self.std) + np.array(self.mean)) / self.raw_scale
        image = image[..., ::-1] if self.channel_order == "BGR" else np.broadcast_to(image, (*image.shape[:2], 3))
        return np.clip(image, 0, 1).astype(np.float32)


def load_image(path: str | Path, data: bytes | None = None, *, upright: bool = True) -> Array:
    """The photo in a file as float32 [H, W, 3], RGB, 0..1.

    Any format that Pillow reads: turned upright by its EXIF orientation (unless `upright` is False: annotations count
    pixels as they are stored), grey repeated to three channels, transparency laid on white, 16-bit grey scaled by
    65535. `data` is the content where it has been read already; `path` then names it. Raises InputError for a missing
    or unreadable file.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as opened:
            return _to_rgb(ImageOps.exif_transpose(opened) if upright else opened, path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image that Pillow reads (arrays are read from .npy)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the image cannot be read: {error}") from error


def load_array(path: str | Path, data: bytes | None = None) -> Array:
    """A network input from a .npy file: float32 [N, C, H, W]; [C, H, W] gains N = 1. `data` as for `load_image`.

    Raises InputError for a missing, truncated or object file and for NaN or infinity, ShapeError for another shape.
    """
    try:
        array = np.load(path if data is None else io.BytesIO(data), allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise InputError(f"{path}: a .npy array of real numbers was wanted, got {kind}")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ShapeError(f"{path}: an array [C, H, W] or [N, C, H, W] was wanted, got {list(array.shape)}")
    array = np.ascontiguousarray(array if array.ndim == 4 else array[None], dtype=np.float32)
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(f"{path}: NaN or infinity at [n, c, y, x] = {place}; finite numbers were wanted")
    return array


def prepare(images: Array | Sequence[Array], preprocess: Preprocess | Mapping[str, Any] | None) -> torch.Tensor:
    """Network input, float32 [N, C, H, W], of one image or several, each [H, W, 3], RGB: float 0..1, or uint8 0..255.

    Raises ShapeError for an array of another shape, and where the images do not come out at one size.
    """
    how = preprocess if isinstance(preprocess, Preprocess) else Preprocess.from_dict(preprocess)
    batch = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
    if not batch:
        raise ShapeError("prepare: no image given")
    for index, image in enumerate(batch):
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ShapeError(
                f"prepare: image {index}: an array [H, W, 3] was wanted, got {list(getattr(image, 'shape', []))}"
            )
    inputs = [how.normalise(how.resize(_as_unit_float(image))) for image in batch]
    for index, x in enumerate(inputs):
        if x.shape != inputs[0].shape:
            raise ShapeError(
                f"prepare: image {index} comes out at {x.shape[1]}x{x.shape[2]} and image 0 at "
                f"{inputs[0].shape[1]}x{inputs[0].shape[2]}; one batch has one size (set size)"
            )
    return torch.from_numpy(np.stack(inputs))


def _as_unit_float(image: Array) -> Array:
    if image.dtype == np.uint8:
        return np.asarray(image, dtype=np.float32) / np.float32(255)
    if not np.issubdtype(image.dtype, np.floating):
        raise ShapeError(f"prepare: an image has dtype {image.dtype}; float 0..1 or uint8 was wanted")
    return np.asarray(image, dtype=np.float32)


def _to_rgb(image: Image.Image, path: str | Path) -> Array:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.float32)
        if image.mode != "F":
            grey = grey / np.float32(65535)
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            raise InputError(f"{path}: grey values outside 0..1 (mode {image.mode}); pass such data as .npy")
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


def _pixels(name: str, values: Sequence[int], count: int) -> tuple[int, ...]:
    if len(values) != count or any(v != int(v) or v < 1 for v in values):
        raise InputError(f"preprocess: {name} is {count} positive whole number(s) of pixels, not {list(values)}")
    return tuple(int(v) for v in values)


def _numbers(name: str, values: Sequence[float], count: int, *, positive: bool = False) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) not in (1, count):
        raise InputError(f"preprocess: {name} has 1 or {count} numbers, not {len(numbers)}")
    if any(not math.isfinite(v) or (positive and v <= 0) for v in numbers):
        raise InputError(f"preprocess: {name} is finite{' and positive' if positive else ''}, not {list(numbers)}")
    return numbers * count if len(numbers) == 1 else numbers
