"""pycaffe's face on the same engine: `from ebp_cuda import caffe` in place of `import caffe`.

docs/pycaffe.md lists what differs from the original.
"""

from typing import Any

from ...importers.caffe.data_layers import DATA_TYPES
from ...importers.caffe.layers import LAYER_TYPES
from . import coord_map, draw, io, proto
from .classifier import Classifier
from .modes import (
    TEST,
    TRAIN,
    set_device,
    set_gpu_fallback,
    set_mode_cpu,
    set_mode_dc_cpu,
    set_mode_dc_gpu,
    set_mode_eb_cpu,
    set_mode_eb_gpu,
    set_mode_gpu,
    set_random_seed,
    set_strict,
)
from .net import Net
from .net_spec import NetSpec, layers, params, to_proto
from .proto import caffe_pb2
from .surgery import fold_negative_scales

__version__ = "1.0.0"
"""The release of Caffe whose pycaffe this follows, for scripts that ask."""


def layer_type_list() -> list[str]:
    """The layer types that a prototxt may use here, those for training that are left out included."""
    left_out = ("Accuracy", "EuclideanLoss", "HingeLoss", "SigmoidCrossEntropyLoss", "Silence", "SoftmaxWithLoss")
    return sorted({*LAYER_TYPES, *DATA_TYPES, *left_out, "Input"})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"ebp_cuda.caffe has no '{name}': networks run here; solvers, detectors, Python layers do not")


__all__ = [
    "TEST",
    "TRAIN",
    "Classifier",
    "Net",
    "NetSpec",
    "caffe_pb2",
    "coord_map",
    "draw",
    "fold_negative_scales",
    "io",
    "layer_type_list",
    "layers",
    "params",
    "proto",
    "set_device",
    "set_gpu_fallback",
    "set_mode_cpu",
    "set_mode_dc_cpu",
    "set_mode_dc_gpu",
    "set_mode_eb_cpu",
    "set_mode_eb_gpu",
    "set_mode_gpu",
    "set_random_seed",
    "set_strict",
    "to_proto",
]
