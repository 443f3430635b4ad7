"""Layers without a bottom: Parameter, and DummyData beside the network's inputs."""

from __future__ import annotations

from math import prod

import numpy as np

from ....errors import ModelError
from ..data_layers import input_shape
from ..writer import OnnxWriter
from .base import MANY, MAX_CONSTANT, Param, Shape, Site, Tensors, kind, unsupported


def parameter_shape(site: Site) -> list[Shape]:
    shape = tuple(int(n) for n in site.param.shape.dim)
    if not shape or min(shape) < 1:
        raise ModelError(f"{site.where}: shape {list(shape)}; wanted lengths of at least 1")
    return [shape]


def parameter_params(site: Site) -> list[Param]:
    return [Param(parameter_shape(site)[0])]


def parameter(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    out.constant_value(site.layer, site.layer.outputs[0], *out.weights(site.layer, tensors))


def dummy_shapes(site: Site) -> list[Shape]:
    count = len(site.layer.tops)
    shapes = [input_shape(site.layer.proto, top, count) or () for top in range(count)]
    if any(not shape or min(shape) < 1 for shape in shapes):
        raise ModelError(f"{site.where}: shapes {[list(shape) for shape in shapes]}; wanted one for each top")
    return shapes


def dummy_constants(site: Site) -> list[np.ndarray]:
    """What each top holds. Raises UnsupportedError where Caffe draws it anew at every forward."""
    shapes, fillers = dummy_shapes(site), list(site.param.data_filler)
    if len(fillers) not in (0, 1, len(shapes)):
        raise ModelError(f"{site.where}: {len(fillers)} data_filler; wanted 0, 1 or {len(shapes)}")
    if any(filler.type != "constant" for filler in fillers):
        raise unsupported(site, "random numbers, other ones at every forward", "data_filler { type: 'constant' }")
    if sum(map(prod, shapes)) > MAX_CONSTANT:
        raise unsupported(site, f"constants of {sum(map(prod, shapes))} numbers", f"at most {MAX_CONSTANT}")
    values = [fillers[min(top, len(fillers) - 1)].value if fillers else 0.0 for top in range(len(shapes))]
    return [np.full(shape, value, np.float32) for shape, value in zip(shapes, values, strict=True)]


def dummy_data(site: Site, out: OnnxWriter, tensors: Tensors) -> None:
    for index, (value, array) in enumerate(zip(site.layer.outputs, dummy_constants(site), strict=True)):
        name = out.tensor(f"{site.layer.name}/{index}", array)
        out.constant_value(site.layer, value, name, str(index) if index else "")


kind("Parameter", parameter, shape=parameter_shape, params=parameter_params, settings="parameter_param", bottoms=(0, 0))
kind("DummyData", dummy_data, shape=dummy_shapes, settings="dummy_data_param", bottoms=(0, 0), tops=(1, MANY))
