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
from PIL import Image

from ..errors import InputError, ShapeError, nearest_names
from ..files import open_regular, refused_unless_readable
from .npy import PLACES, check_head
from .photo import Photo, open_photo

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

_STRIP = 1 << 22
"""Values that are looked at, at a time, for whether they have 8 bits."""

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

    @classmethod
    def from_timm(cls, config: Any) -> Preprocess:
        """What a timm model's data config says; the whole photo is resized to the input's size, where timm cuts a crop.

        config: the model, its `pretrained_cfg`, or what `timm.data.resolve_model_data_config` gives. Raises InputError.
        """
        config = getattr(config, "pretrained_cfg", config)
        if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= set(config):
            raise InputError(f"from_timm: got a {type(config).__name__}; wanted a timm model or its pretrained_cfg")
        channels, *size = config["input_size"]
        order = "GRAY" if channels == 1 else "RGB"
        return cls(
            tuple(size), channel_order=order, mean=tuple(config["mean"]), std=tuple(config["std"]),
            interpolation=_known_filter(config.get("interpolation")),
        )  # fmt: skip

    @classmethod
    def from_torchvision(cls, weights: Any) -> Preprocess:
        """What torchvision's transforms say; the whole photo is resized to the crop's size, where they cut a crop.

        weights: such as `ResNet50_Weights.DEFAULT`, or its `transforms()`. Raises InputError.
        """
        preset = weights.transforms() if callable(getattr(weights, "transforms", None)) else weights
        mean, std = getattr(preset, "mean", None), getattr(preset, "std", None)
        if mean is None or std is None:
            raise InputError(f"from_torchvision: got a {type(preset).__name__}; wanted weights with mean and std")
        size = [*(getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None) or ())]
        sides = (size[0], size[-1]) if size else None
        method = getattr(getattr(preset, "interpolation", None), "value", None)
        return cls(sides, mean=tuple(mean), std=tuple(std), interpolation=_known_filter(method))

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

    @property
    def resampling(self) -> Image.Resampling:
        """Pillow's filter for `interpolation`."""
        return _FILTERS[self.interpolation]

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that a photo of `size` (height, width) has as the network sees it."""
        if self.size is not None:
            return self.size
        if self.shortest_side is None:
            return size
        factor = self.shortest_side / min(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def resize(self, image: Pixels) -> Pixels:
        """`image` at the size the network is to see.

        What has 8 bits is resized in 8 bits, also where it comes as floats n / 255: so a photo becomes the same input
        whether it comes from `load_image`, `open_photo` or as an array of bytes.

        Args:
            image: [H, W, 3], float in 0..1 or uint8.

        Returns:
            [h, w, 3] of the same kind; float32 in 0..1.
        """
        target = self.size_of(image.shape[:2])
        if target == image.shape[:2]:
            return image
        bits = _eight_bits(image)
        if bits is not None:
            resized = Photo.of_array(bits).pixels(target, self.resampling)
            return resized if image.dtype == np.uint8 else _as_unit_float(resized)
        channels = range(image.shape[2] if image.strides[2] else 1)
        values = image.astype(np.float32, copy=False)
        planes = [_resize_plane(values[..., c], target, self.resampling) for c in channels]
        return np.broadcast_to(np.stack(planes, axis=-1), (*target, image.shape[2]))

    def normalize(self, image: Array) -> Array:
        """float32 [C, H, W] for the network from an RGB image float [H, W, 3] in 0..1, without resizing."""
        if self.channel_order == "GRAY":
            image = (image @ _LUMA)[..., None]
        elif self.channel_order == "BGR":
            image = image[..., ::-1]
        x = (image * self.raw_scale - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)

    def picture(self, x: Array) -> Array:
        """The RGB image, float [H, W, 3] clipped to 0..1, that a network input [C, H, W] shows: `normalize` undone.

        Raises ShapeError where the number of channels is another.
        """
        if x.ndim != 3 or x.shape[0] != self.channels:
            raise ShapeError(f"preprocess: an input [{self.channels}, H, W] was wanted, got {list(x.shape)}")
        image = (x.transpose(1, 2, 0) * np.array(self.std) + np.array(self.mean)) / self.raw_scale
        image = image[..., ::-1] if self.channel_order == "BGR" else np.broadcast_to(image, (*image.shape[:2], 3))
        return np.clip(image, 0, 1).astype(np.float32)


def _known_filter(name: object) -> str:
    """The filter of that name; bilinear for those that are not used here."""
    return str(name) if name in _FILTERS else "bilinear"


def load_image(path: str | Path, data: bytes | None = None, *, upright: bool = True) -> Array:
    """The photo in a file as float32 [H, W, 3], RGB, 0..1: `open_photo`, as one array; of a grey photo a read-only one.

    A photo that is only wanted at a network's size is better opened by `open_photo` and given to `prepare` as it is:
    that gives the same input in a fifth of the memory.

    Args:
        path: the file; where `data` is given, its name in errors.
        data: the file's content, where it has been read already.
        upright: turned by its EXIF orientation; False where annotations count pixels as they are stored.

    Raises:
        InputError: the file is missing, unreadable, or has more than `photo.MAX_PIXELS` pixels.
    """
    pixels = open_photo(path, data, upright=upright).pixels()
    if pixels.strides[2]:
        return _as_unit_float(pixels)
    return np.broadcast_to(_as_unit_float(pixels[..., :1]), pixels.shape)  # grey: one channel in memory


def load_array(path: str | Path, data: bytes | None = None, axes: int = 2) -> Array:
    """A network input from a .npy file: float32 [N, C, H, W]; [C, H, W] gains N = 1.

    Args:
        path: the file; where `data` is given, its name in errors.
        data: the file's content, where it has been read already.
        axes: behind the channels: 1 for sequences [N, C, L], 3 for volumes [N, C, T, H, W].

    Raises:
        InputError: a missing, truncated or object file, NaN or infinity.
        ShapeError: another shape.
    """
    with (
        refused_unless_readable(path, "not a readable .npy file"),
        open_regular(path) if data is None else io.BytesIO(data) as file,
        np.errstate(over="ignore"),  # what float32 cannot hold is infinite then, and refused below
    ):
        check_head(path, file, axes)
        array = np.load(file, allow_pickle=False)
        array = np.ascontiguousarray(array if array.ndim == axes + 2 else array[None], dtype=np.float32)
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(f"{path}: NaN or infinity at [n, c, {PLACES[axes]}] = {place}; finite numbers were wanted")
    return array


def prepare(
    images: Pixels | Photo | Sequence[Pixels | Photo], preprocess: Preprocess | Mapping[str, Any] | None
) -> torch.Tensor:
    """The network input of one image or several, float32 [N, C, H, W].

    Args:
        images: photos, or RGB arrays [H, W, 3], float in 0..1 or uint8 in 0..255; see `Preprocess.resize`.
        preprocess: how a photo becomes an input, or the fields of that as a dict; None changes nothing.

    Raises:
        ShapeError: an array of another shape or dtype, or images that do not come out at one size.
    """
    how = preprocess if isinstance(preprocess, Preprocess) else Preprocess.from_dict(preprocess)
    one = isinstance(images, Photo) or (isinstance(images, np.ndarray) and images.ndim == 3)
    batch: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
    if not batch:
        raise ShapeError("prepare: no image given")
    inputs = [how.normalize(_as_unit_float(_resized(index, image, how))) for index, image in enumerate(batch)]
    for index, x in enumerate(inputs):
        if x.shape != inputs[0].shape:
            raise ShapeError(
                f"prepare: image {index} comes out at {x.shape[1]}x{x.shape[2]} and image 0 at "
                f"{inputs[0].shape[1]}x{inputs[0].shape[2]}; one batch has one size (set size)"
            )
    return torch.from_numpy(np.stack(inputs))


def _resized(index: int, image: Any, how: Preprocess) -> Pixels:
    if isinstance(image, Photo):
        return image.pixels(how.size_of(image.size), how.resampling)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        shape = list(getattr(image, "shape", []))
        raise ShapeError(f"prepare: image {index}: an array [H, W, 3] was wanted, got {shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ShapeError(f"prepare: an image has dtype {image.dtype}; float 0..1 or uint8 was wanted")
    return how.resize(image)


def _as_unit_float(image: Pixels) -> Array:
    """uint8 0..255 or float 0..1 as float32 0..1."""
    if image.dtype == np.uint8:
        return np.asarray(image, dtype=np.float32) / np.float32(255)
    return np.asarray(image, dtype=np.float32)


def _eight_bits(image: Pixels) -> npt.NDArray[np.uint8] | None:
    """The image in uint8, where it is that or holds n / 255 only; None where it holds other values."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    shown = image if image.strides[2] else image[..., :1]
    bits = np.empty(shown.shape, np.uint8)
    rows = max(1, _STRIP // shown[0].size)  # of a float image no more than the first rows are looked at
    for top in range(0, len(shown), rows):
        part = np.asarray(shown[top : top + rows], dtype=np.float32)
        whole = np.clip(np.rint(part * np.float32(255)), 0, 255)
        if not np.array_equal(whole / np.float32(255), part):
            return None
        bits[top : top + rows] = whole
    return np.broadcast_to(bits, image.shape)


def _resize_plane(plane: Array, size: tuple[int, int], resampling: Image.Resampling) -> Array:
    """One channel in float32; clipped, because bicubic overshoots."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.clip(np.asarray(image.resize((size[1], size[0]), resampling)), 0, 1)


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
