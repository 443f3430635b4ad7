"""The table of layer types and what its entries are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....errors import ModelError, ShapeError, UnsupportedError
from ..layer import Layer
from ..net import CaffeNet
from ..writer import OnnxWriter

MAX_CONSTANT = 1 << 24
"""Numbers in a constant that a layer brings along by itself."""

MANY = 1 << 30
"""More bottoms or tops than any layer has."""

Shape = tuple[int, ...]
Tensors = Sequence[np.ndarray]


@dataclass(frozen=True)
class Param:
    """A parameter blob: its shape, and how it starts where no weights are given.

    `filler` is the FillerParameter of the prototxt or None; `default` is then the constant, or "msra" for weights.
    `loose`: a stored blob fits by its size alone, because forks differ in the axes that they give it.
    """

    shape: Shape
    filler: Any = None
    default: float | str = 0.0
    loose: bool = False


@dataclass(frozen=True)
class LayerContext:
    """A layer in its place: with the shapes of its bottoms."""

    net: CaffeNet
    layer: Layer
    shapes: tuple[Shape, ...]

    @property
    def where(self) -> str:
        return self.net.where(self.layer)

    @property
    def shape(self) -> Shape:
        """Shape of the first bottom."""
        return self.shapes[0]

    @property
    def param(self) -> Any:
        """The message with this type's settings, e.g. convolution_param."""
        return getattr(self.layer.proto, LAYER_TYPES[self.layer.type].settings)

    def axis(self, axis: int, rank: int | None = None) -> int:
        """`axis` counted from the front. Raises ModelError where the first bottom has no such axis."""
        rank = len(self.shape) if rank is None else rank
        if not -rank <= axis < rank:
            raise ModelError(f"{self.where}: axis {axis}, but its bottom has shape {list(self.shape)}")
        return axis % rank

    def rank(self, *wanted: int) -> None:
        """Raises ShapeError unless the first bottom has one of the ranks."""
        if len(self.shape) not in wanted:
            text = " or ".join(str(n) for n in wanted)
            raise ShapeError(
                f"{self.where}: bottom '{self.layer.bottoms[0]}' has shape {list(self.shape)}; wanted {text} axes"
            )


ShapeRule = Callable[[LayerContext], list[Shape]]
ParamRule = Callable[[LayerContext], list[Param]]
Emitter = Callable[[LayerContext, OnnxWriter, Tensors], None]


@dataclass(frozen=True)
class LayerType:
    """One layer type.

    `bottoms` and `tops` are the least and most it takes; `settings` names its message in the prototxt. `bakes_size`
    says whether the nodes hold numbers that depend on height and width, which must then stay fixed; `bakes_batch`
    whether on the number of images.
    """

    emit: Emitter
    shape: ShapeRule
    params: ParamRule
    settings: str
    bottoms: tuple[int, int]
    tops: tuple[int, int]
    bakes_size: Callable[[LayerContext], bool]
    bakes_batch: Callable[[LayerContext], bool]


LAYER_TYPES: dict[str, LayerType] = {}


def same_shape(ctx: LayerContext) -> list[Shape]:
    """Every top has the shape of the first bottom."""
    return [ctx.shape] * len(ctx.layer.tops)


def filler(param: Any, name: str) -> Any:
    """The filler in a settings message, None where it is not given."""
    return getattr(param, name) if param.HasField(name) else None


def no_params(ctx: LayerContext) -> list[Param]:
    return []


def register_layer(
    name: str,
    emit: Emitter,
    *,
    shape: ShapeRule = same_shape,
    params: ParamRule = no_params,
    settings: str = "",
    bottoms: tuple[int, int] = (1, 1),
    tops: tuple[int, int] = (1, 1),
    bakes_size: Callable[[LayerContext], bool] = lambda ctx: False,
    bakes_batch: Callable[[LayerContext], bool] = lambda ctx: False,
) -> None:
    """Enter a layer type into `LAYER_TYPES`."""
    LAYER_TYPES[name] = LayerType(emit, shape, params, settings, bottoms, tops, bakes_size, bakes_batch)


def four_pads(param: Any) -> tuple[list[int], list[int]] | None:
    """pad_t, pad_l and pad_b, pad_r, by which a fork pads each side by itself; None where they are 0 or not given."""
    before, behind = [param.pad_t, param.pad_l], [param.pad_b, param.pad_r]
    return (before, behind) if any(before + behind) else None


def unsupported(ctx: LayerContext, what: str, wanted: str) -> UnsupportedError:
    return UnsupportedError(f"{ctx.where}: {what}; wanted {wanted}")
