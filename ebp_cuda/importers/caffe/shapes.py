"""Shapes of all values by Caffe's rules, and which of their axes a model may leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ...errors import ModelError, ShapeError
from .layer import Layer
from .layers import LAYER_TYPES, LayerContext
from .net import CaffeNet

MAX_COUNT = (1 << 31) - 1
"""Numbers that a blob may have: Caffe counts them in an int."""

Shapes = dict[str, tuple[int, ...]]


def context_of(net: CaffeNet, layer: Layer, shapes: Shapes) -> LayerContext:
    """The layer with the shapes of its bottoms."""
    return LayerContext(net, layer, tuple(shapes[value] for value in layer.inputs))


def infer_shapes(net: CaffeNet, inputs: Mapping[str, Sequence[int]], last: int | None = None) -> Shapes:
    """Shape of every value of `net.kept()` for the given input shapes, by Caffe's rules.

    last: index of the last layer that is asked; those behind it need not fit.
    Raises ModelError, ShapeError, UnsupportedError that name the first layer that does not fit.
    """
    shapes: Shapes = {value: tuple(shape) for value, shape in inputs.items()}
    for value, shape in shapes.items():
        _check_size(shape, f"{net.origin}: input '{value}'")
    for layer in net.kept():
        if last is not None and layer.index > last:
            break
        here = context_of(net, layer, shapes)
        for value, shape in zip(layer.outputs, LAYER_TYPES[layer.type].shape(here), strict=True):
            _check_size(shape, here.where)
            shapes[value] = shape
    return shapes


def _check_size(shape: Sequence[int], where: str) -> None:
    if prod(shape) > MAX_COUNT:
        raise ShapeError(f"{where}: a blob of shape {list(shape)}; wanted at most {MAX_COUNT} numbers, as in Caffe")


def free_axes(net: CaffeNet, inputs: Shapes) -> dict[str, set[int]]:
    """Value -> the axes whose length the model leaves open.

    An axis of the inputs is open when another length of it gives no error and the same parameters; an axis of any
    other value when its length then changes.
    """
    base = infer_shapes(net, inputs)
    wanted = _param_shapes(net, base)
    free: dict[str, set[int]] = {value: set() for value in base}
    contexts = [(LAYER_TYPES[layer.type], context_of(net, layer, base)) for layer in net.kept()]
    batch_is_baked = any(layer_type.bakes_batch(here) for layer_type, here in contexts)
    size_is_baked = any(layer_type.bakes_size(here) for layer_type, here in contexts)
    for axes, more, baked in ((slice(0, 1), 1, batch_is_baked), (slice(2, None), 32, size_is_baked)):
        if baked:
            continue
        other = {}
        for value, shape in inputs.items():
            dims = list(shape)
            dims[axes] = [n + more for n in dims[axes]]
            other[value] = tuple(dims)
        try:
            shapes = infer_shapes(net, other)
            if _param_shapes(net, shapes) != wanted:
                continue
        except (ModelError, ShapeError):
            continue
        for value, shape in base.items():
            # 32 more pixels are one more window at least, unless the layer takes the whole plane
            free[value] |= {i for i, (a, b) in enumerate(zip(shape, shapes[value], strict=True)) if a != b}
    return free


def _param_shapes(net: CaffeNet, shapes: Shapes) -> list[list[tuple[int, ...]]]:
    return [[p.shape for p in LAYER_TYPES[x.type].params(context_of(net, x, shapes))] for x in net.kept()]
