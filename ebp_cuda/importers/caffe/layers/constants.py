"""Layers without a bottom: Parameter, and DummyData beside the network's inputs."""

from __future__ import annotations

from math import prod

import numpy as np

from ....errors import ModelError
from ..data_layers import input_shape
from ..writer import OnnxWriter
from .base import MANY, MAX_CONSTANT, LayerContext, Param, Shape, Tensors, register_layer, unsupported


def parameter_shape(ctx: LayerContext) -> list[Shape]:
    shape = tuple(int(n) for n in ctx.param.shape.dim)
    if not shape or min(shape) < 1:
        raise ModelError(f"{ctx.where}: shape {list(shape)}; wanted lengths of at least 1")
    return [shape]


def parameter_params(ctx: LayerContext) -> list[Param]:
    return [Param(parameter_shape(ctx)[0])]


def parameter(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    out.constant_value(ctx.layer, ctx.layer.outputs[0], *out.weights(ctx.layer, tensors))


def dummy_shapes(ctx: LayerContext) -> list[Shape]:
    count = len(ctx.layer.tops)
    shapes = [input_shape(ctx.layer.proto, top, count) or () for top in range(count)]
    if any(not shape or min(shape) < 1 for shape in shapes):
        raise ModelError(f"{ctx.where}: shapes {[list(shape) for shape in shapes]}; wanted one for each top")
    return shapes


def dummy_constants(ctx: LayerContext) -> list[np.ndarray]:
    """What each top holds. Raises UnsupportedError where Caffe draws it anew at every forward."""
    shapes, fillers = dummy_shapes(ctx), list(ctx.param.data_filler)
    if len(fillers) not in (0, 1, len(shapes)):
        raise ModelError(f"{ctx.where}: {len(fillers)} data_filler; wanted 0, 1 or {len(shapes)}")
    if any(filler.type != "constant" for filler in fillers):
        raise unsupported(ctx, "random numbers, other ones at every forward", "data_filler { type: 'constant' }")
    if sum(map(prod, shapes)) > MAX_CONSTANT:
        raise unsupported(ctx, f"constants of {sum(map(prod, shapes))} numbers", f"at most {MAX_CONSTANT}")
    values = [fillers[min(top, len(fillers) - 1)].value if fillers else 0.0 for top in range(len(shapes))]
    return [np.full(shape, value, np.float32) for shape, value in zip(shapes, values, strict=True)]


def dummy_data(ctx: LayerContext, out: OnnxWriter, tensors: Tensors) -> None:
    for index, (value, array) in enumerate(zip(ctx.layer.outputs, dummy_constants(ctx), strict=True)):
        name = out.tensor(f"{ctx.layer.name}/{index}", array)
        out.constant_value(ctx.layer, value, name, str(index) if index else "")


register_layer(
    "Parameter", parameter, shape=parameter_shape, params=parameter_params, settings="parameter_param", bottoms=(0, 0)
)
register_layer("DummyData", dummy_data, shape=dummy_shapes, settings="dummy_data_param", bottoms=(0, 0), tops=(1, MANY))
