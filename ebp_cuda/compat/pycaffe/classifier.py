"""caffe.Classifier: photos in, class probabilities out, over ten crops or the centre."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import io
from .modes import TEST
from .net import Net


class Classifier(Net):
    """A Net with its Transformer.

    image_dims: (height, width) that photos are resized to before crops of the input's size are taken; the input's own
    size by default. mean, input_scale, raw_scale, channel_swap: as the Transformer's setters.
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
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)
        self.crop_dims = np.asarray(self.blobs[name].shape[2:], int)
        self.image_dims = np.array(self.crop_dims if image_dims is None else image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Scores [N, classes] of photos [H, W, C]; with `oversample` the mean over ten crops of each."""
        name = self.inputs[0]
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
