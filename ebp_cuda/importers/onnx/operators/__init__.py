"""Converters of ONNX operators, by kind; each enters itself in `call.CONVERTERS`."""

from . import (
    activations,
    arithmetic,
    caffe,
    layers,
    logic,
    norms,
    picking,
    pooling,
    products,
    reductions,
    resizing,
    shapes,
)

__all__ = [
    "activations",
    "arithmetic",
    "caffe",
    "layers",
    "logic",
    "norms",
    "picking",
    "pooling",
    "products",
    "reductions",
    "resizing",
    "shapes",
]
