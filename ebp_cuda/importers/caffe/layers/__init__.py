"""What each Caffe layer type is: the shapes it makes, the parameters it holds, the ONNX nodes it becomes.

`KINDS` is the table; the modules of this package fill it, one entry a type. To add a layer type, write up to three
small functions and enter them with `kind(...)`.
"""

from __future__ import annotations

from . import (  # noqa: F401  they fill KINDS
    combine,
    constants,
    convolution,
    elementwise,
    normalise,
    picking,
    pooling,
    reshaping,
    resizing,
    statistics,
)
from .base import KINDS, Kind, Param, Site, Tensors

__all__ = ["KINDS", "Kind", "Param", "Site", "Tensors"]
