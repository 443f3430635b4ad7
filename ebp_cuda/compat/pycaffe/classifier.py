"""caffe.Classifier: photos in, class probabilities out, over ten crops or the centre."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, ShapeError
from . import io
from .modes import TEST
from .net import PycaffeNet


class Classifier(PycaffeNet):
    """A Net with its Transformer.

    Args:
        model_file: the prototxt; its first input is [N, C, H, W].
        pretrained_file: the caffemodel. There is no phase here: it is always TEST.
        image_dims: (height, width) that photos are resized to before crops of the input's size are taken; the input's
            own size by default.
        mean, input_scale, raw_scale, channel_swap: as the Transformer's setters take them.

    Raises:
        InputError: an argument of another kind, image_dims smaller than the crops.
        ShapeError: the first input is no batch of images; a mean that does not fit.
        ModelError, UnsupportedError: as Net.
    """

    def __init__(
        self,
        model_file: str | Path,
        pretrained_file: str | Path,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, TEST)
        name, shape = self.inputs[0], self.blobs[self.inputs[0]].shape
        if len(shape) != 4:
            raise ShapeError(f"Classifier({model_file}): input '{name}' has shape {list(shape)}; wanted [N, C, H, W]")
        self.transformer = io.Transformer({name: shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)
        self.crop_dims = np.asarray(shape[2:], int)
        self.image_dims = self.crop_dims if image_dims is None else _checked_dims(image_dims, self.crop_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Scores of photos, float32 [N, classes].

        Args:
            inputs: photos [H, W, C], as `caffe.io.load_image` gives them.
            oversample: the mean over ten crops of each; otherwise the crop in the centre.
        """
        name = self.inputs[0]
        channels = self.blobs[name].shape[1]
        for index, photo in enumerate(inputs):
            if np.ndim(photo) != 3 or np.shape(photo)[2] != channels:
                raise ShapeError(f"predict: photo {index} has shape {list(np.shape(photo))}; wanted [H, W, {channels}]")
        if len(inputs) == 0:
            raise InputError("predict: no photos; wanted a list of arrays [H, W, C]")
        photos = [io.resize_image(photo, self.image_dims.tolist()) for photo in inputs]
        if oversample:
            crops = io.oversample(photos, self.crop_dims.tolist())
        else:
            top, left = (self.image_dims - self.crop_dims) // 2
            height, width = self.crop_dims
            crops = np.asarray([photo[top : top + height, left : left + width] for photo in photos])
        data = np.asarray([self.transformer.preprocess(name, crop) for crop in crops])
        batch: dict[str, Any] = {name: data}
        scores = self.forward_all(**batch)[self.outputs[0]]
        return scores.reshape(len(photos), 10, -1).mean(1) if oversample else scores


def _checked_dims(image_dims: Any, crop_dims: np.ndarray) -> np.ndarray:
    sizes = list(image_dims) if isinstance(image_dims, (list, tuple, np.ndarray)) else []
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in sizes)
    if len(sizes) != 2 or not whole or any(n < least for n, least in zip(sizes, crop_dims, strict=True)):
        raise InputError(
            f"Classifier: image_dims={image_dims!r}; wanted (height, width) in pixels, at least the input's "
            f"{tuple(crop_dims.tolist())} (a phase is not among the arguments: it is TEST)"
        )
    return np.array(sizes, int)
