"""caffe.io: photos as arrays, the Transformer, crops, and arrays as protobuf blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from ...errors import InputError, ShapeError, nearest_names
from .proto import caffe_pb2

Array = npt.NDArray[Any]

_MODES = {0: "nearest", 1: "bilinear", 3: "bicubic"}
_LUMA = np.array([0.2125, 0.7154, 0.0721], np.float32)  # ITU-R BT.709, as scikit-image, which pycaffe reads photos with


def load_image(filename: str | Path, color: bool = True) -> Array:
    """A photo as pycaffe loads it (scikit-image's img_as_float of the stored pixels).

    Whole numbers are divided by the largest of their type (255, 65535), floats stay as they are, transparency is cut
    off, and an EXIF orientation is not followed. Pillow reads color at 8 bits, whatever the file has.

    Args:
        filename: any image that Pillow reads.
        color: three channels, grey repeated; otherwise one, color weighted by ITU-R BT.709.

    Returns:
        float32 [H, W, 3] RGB, or [H, W, 1].

    Raises:
        InputError: the file cannot be read as an image.
    """
    try:
        with Image.open(filename) as photo:
            pixels = _as_float(photo)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{filename}: cannot be read as an image: {error}") from None
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3 if color else 1, axis=2)
    return pixels if color else (pixels @ _LUMA)[:, :, np.newaxis]


def _as_float(photo: Image.Image) -> Array:
    """float32 [H, W] of a grey image with more than 8 bits, [H, W, 3] of any other."""
    if photo.mode == "F":
        return np.asarray(photo, np.float32)
    if photo.mode.startswith("I"):  # some versions of Pillow say "I" for a PNG of 16 bits, which has no 32
        wide = photo.mode == "I" and photo.format != "PNG"
        return (np.asarray(photo, np.float64) / (2**31 - 1 if wide else 2**16 - 1)).astype(np.float32)
    return np.asarray(photo.convert("RGB"), np.float32) / np.float32(255)


def resize_image(im: Array, new_dims: Sequence[int], interp_order: int = 1) -> Array:
    """im [H, W, C] at new_dims (height, width), float32; interp_order 0 nearest, 1 bilinear, 3 bicubic.

    As scikit-image did it in 2016: pixels have centres at halves, nothing is smoothed before shrinking, the result
    stays within the image's own range. Raises InputError and ShapeError.
    """
    if interp_order not in _MODES:
        raise InputError(f"resize_image: interp_order {interp_order}; wanted one of {sorted(_MODES)}")
    im = np.asarray(im, np.float32)
    if im.ndim != 3:
        raise ShapeError(f"resize_image: got shape {list(im.shape)}, wanted [H, W, C]")
    plane = torch.from_numpy(np.ascontiguousarray(im.transpose(2, 0, 1)))[None]
    more = {} if interp_order == 0 else {"align_corners": False}
    made = F.interpolate(plane, [int(n) for n in new_dims[:2]], mode=_MODES[interp_order], **more)
    return made.clamp(float(im.min()), float(im.max()))[0].permute(1, 2, 0).contiguous().numpy()


def oversample(images: Sequence[Array], crop_dims: Sequence[int]) -> Array:
    """Ten crops of each image [H, W, C]: corners and centre, then the same mirrored; float32 [10 N, h, w, C].

    Raises ShapeError where a crop does not fit.
    """
    height, width = (int(n) for n in crop_dims)
    found = []
    for image in images:
        down, right = image.shape[0] - height, image.shape[1] - width
        if min(down, right) < 0:
            raise ShapeError(f"oversample: crops of {height} x {width} from an image of shape {list(image.shape)}")
        corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        crops = [image[y : y + height, x : x + width] for y, x in corners]
        found += [*crops, *(crop[:, ::-1] for crop in crops)]
    return np.asarray(found, np.float32)


class Transformer:
    """Photos [H, W, C] -> what an input blob wants, and back; every step is off until it is set.

    In order: resize to the blob's plane, transpose, channel_swap, * raw_scale, - mean, * input_scale.
    inputs: input blob -> its shape [N, C, H, W]. Raises InputError (unknown blob) and ShapeError (does not fit).
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.inputs:
            raise InputError(f"Transformer: no input '{name}'{nearest_names(name, self.inputs)}")
        return self.inputs[name]

    def preprocess(self, in_: str, data: Array) -> Array:
        """data [H, W, C] as float32 in the form of the blob without its batch axis."""
        shape = self._shape(in_)
        x = np.asarray(data, np.float32)
        if x.shape[:2] != shape[2:]:
            x = resize_image(x, shape[2:])
        if in_ in self.transpose:
            x = x.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            x = x[list(self.channel_swap[in_])]
        x = x * np.float32(self.raw_scale.get(in_, 1.0))
        if in_ in self.mean:
            x = x - self.mean[in_]
        return np.asarray(x * np.float32(self.input_scale.get(in_, 1.0)), np.float32)

    def deprocess(self, in_: str, data: Array) -> Array:
        """The inverse of `preprocess`, but for the resize."""
        self._shape(in_)
        x = np.array(data, np.float32).squeeze()
        x = x / np.float32(self.input_scale.get(in_, 1.0))
        if in_ in self.mean:
            x = x + self.mean[in_]
        x = x / np.float32(self.raw_scale.get(in_, 1.0))
        if in_ in self.channel_swap:
            x = x[np.argsort(self.channel_swap[in_])]
        return x.transpose(np.argsort(self.transpose[in_])) if in_ in self.transpose else x

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Order of axes, (2, 0, 1) from [H, W, C] to [C, H, W]."""
        self.transpose[in_] = _permutation("set_transpose", in_, order, len(self._shape(in_)) - 1, "axes")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Order of channels, (2, 1, 0) from RGB to BGR."""
        self.channel_swap[in_] = _permutation("set_channel_swap", in_, order, self._shape(in_)[1], "channels")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Factor before the mean is taken: 255 for photos in 0..1."""
        self._shape(in_)
        self.raw_scale[in_] = _factor("set_raw_scale", in_, scale)

    def set_mean(self, in_: str, mean: Array) -> None:
        """Mean to subtract: one number for each channel, or an array [C, H, W] (or [H, W]) of the input's size."""
        shape = self._shape(in_)
        try:
            mean = np.asarray(mean, np.float32)
        except (TypeError, ValueError):
            raise InputError(f"set_mean('{in_}', {mean!r}): wanted an array of numbers") from None
        if mean.ndim == 1 and mean.shape[0] == shape[1]:
            mean = mean[:, np.newaxis, np.newaxis]
        elif mean.ndim not in (2, 3) or (1, *mean.shape)[-3:] != shape[1:]:
            raise ShapeError(f"set_mean('{in_}'): got shape {list(mean.shape)}, wanted [{shape[1]}] or {shape[1:]}")
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Factor after the mean is taken."""
        self._shape(in_)
        self.input_scale[in_] = _factor("set_input_scale", in_, scale)


def _permutation(setter: str, in_: str, order: Any, count: int, of: str) -> tuple[int, ...]:
    places = list(order) if isinstance(order, (list, tuple, np.ndarray)) else []
    if not all(isinstance(place, (int, np.integer)) for place in places) or sorted(places) != list(range(count)):
        raise ShapeError(f"{setter}('{in_}', {order!r}): wanted an order of {count} {of}, such as {list(range(count))}")
    return tuple(int(place) for place in places)


def _factor(setter: str, in_: str, scale: Any) -> float:
    try:
        factor = float(scale)
    except (TypeError, ValueError):
        factor = 0.0
    if factor == 0 or not np.isfinite(factor):
        raise InputError(f"{setter}('{in_}', {scale!r}): wanted a number other than 0")
    return factor


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """The numbers of a BlobProto (its diff if asked) in its shape, [num, channels, height, width] in old files."""
    numbers = np.array(blob.diff if return_diff else blob.data, np.float32)
    old = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = [blob.num, blob.channels, blob.height, blob.width] if old else list(blob.shape.dim)
    try:
        return numbers.reshape(shape)
    except ValueError:
        raise ShapeError(f"blobproto_to_array: {numbers.size} numbers for the shape {shape}") from None


def array_to_blobproto(arr: Array, diff: Array | None = None) -> Any:
    """An array, and a diff of its shape if there is one, as a BlobProto."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, np.float32).ravel().tolist())
    if diff is not None:
        if diff.shape != arr.shape:
            raise ShapeError(f"array_to_blobproto: diff {list(diff.shape)}, array {list(arr.shape)}; wanted one shape")
        blob.diff.extend(np.asarray(diff, np.float32).ravel().tolist())
    return blob


def array_to_datum(arr: Array, label: int | None = None) -> Any:
    """An array [channels, height, width], uint8 or float, as a Datum, the record of Caffe's databases."""
    if arr.ndim != 3:
        raise ShapeError(f"array_to_datum: array {list(arr.shape)}; wanted three axes")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float64).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> Array:
    """The numbers of a Datum, [channels, height, width]: uint8 where it holds bytes, else float64.

    Raises ShapeError where they are not as many as its sizes say, InputError where they are a coded picture.
    """
    if datum.encoded:
        raise InputError("datum_to_array: an encoded picture; wanted plain numbers (Pillow opens datum.data)")
    numbers = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float64)
    shape = (datum.channels, datum.height, datum.width)
    if numbers.size != np.prod(shape, dtype=object):
        raise ShapeError(f"datum_to_array: {numbers.size} numbers for the shape {list(shape)}")
    return numbers.reshape(shape).copy()
