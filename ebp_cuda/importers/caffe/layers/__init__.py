"""What each Caffe layer type is: the shapes it makes, the parameters it holds, the ONNX nodes it becomes.

`LAYER_TYPES` is the table; the modules of this package fill it, one entry a type. To add a layer type, write up to
three small functions and enter them with `register_layer(...)`.
"""

from __future__ import annotations

from . import (  # noqa: F401  they fill LAYER_TYPES
    combine,
    constants,
    convolution,
    elementwise,
    normalize,
    picking,
    pooling,
    reshaping,
    resizing,
    statistics,
)
from .base import LAYER_TYPES, LayerContext, LayerType, Param, Tensors

__all__ = ["LAYER_TYPES", "LayerContext", "LayerType", "Param", "Tensors"]
