"""A photo and a network trained on ImageNet, for the examples that want something real to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch import nn

from ebp_cuda.images.preprocess import Preprocess, prepare
from ebp_cuda.models import efficientnet_lite0, labels

SIZE = (160, 224)
LAYER, CONTRAST = "blocks.5", "pool"
LABELS = labels("imagenet")


def network() -> nn.Module:
    """EfficientNet-Lite0 with its trained weights."""
    return efficientnet_lite0.load().eval()


def photo(name: str) -> tuple[np.ndarray, torch.Tensor]:
    """A photo that scikit-image ships, float [H, W, 3] from 0 to 1, and the network's input made of it."""
    image = getattr(data, name)().astype(np.float32) / np.float32(255)
    how = Preprocess.from_dict(efficientnet_lite0.PREPROCESS).override(size=SIZE, interpolation="bicubic")
    return image, prepare(image, how)


def folder() -> Path:
    """Where the pictures go: the first argument of the script."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out")
    out.mkdir(parents=True, exist_ok=True)
    return out
