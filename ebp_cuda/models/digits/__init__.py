"""A small GoogLeNet in Caffe format that finds handwritten digits in photographic scenes, trained here.

from ebp_cuda.models import digits
net = digits.load()                       # deploy.prototxt + digits.caffemodel, through ONNX
scene = digits.scenes.make_scene("test", seed=0, index=0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._data import FOLDER
from . import scenes

if TYPE_CHECKING:
    from ebp_cuda.net import Net

__all__ = ["CONTRAST_LAYER", "DEPLOY", "LABELS", "LAYER", "PREPROCESS", "TOP", "WEIGHTS", "load", "scenes"]

DEPLOY = FOLDER / "digits" / "deploy.prototxt"
WEIGHTS = FOLDER / "digits" / "digits.caffemodel"

LAYER = "pool1"
"""Where maps are read: 28 x 28 places, whose centres lie within half a pixel of where resizing the map puts them.
(Every 3x3/2 pooling without padding shifts them on: a map of pool2 resized to the image lies 2.5 pixels up and left.)
"""
CONTRAST_LAYER = "pool_ave"
TOP = "classifier"

LABELS = [str(label) for label in range(scenes.CLASSES)]
PREPROCESS: dict[str, Any] = {
    "size": [scenes.SIZE, scenes.SIZE],
    "shortest_side": None,
    "channel_order": "BGR",
    "raw_scale": 255,
    "mean": [104.0, 117.0, 123.0],
    "std": [1.0, 1.0, 1.0],
}


def load() -> Net:
    """The trained network, imported from its Caffe files through ONNX, with labels and preprocessing."""
    from ebp_cuda.importers.caffe import to_onnx
    from ebp_cuda.importers.onnx import load_onnx
    from ebp_cuda.net import Net

    graph = load_onnx(to_onnx(DEPLOY, WEIGHTS, labels=LABELS, preprocess=PREPROCESS))
    graph.meta["origin"] = str(DEPLOY)
    return Net(graph)
