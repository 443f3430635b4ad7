"""Start values of parameters for a network that comes without weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from .schema import FillerParameter, enum_name


def fill(shape: Sequence[int], filler: Any, default: float | str, rng: np.random.Generator, where: str) -> np.ndarray:
    """A float32 array drawn as Caffe's filler of that name does (its distribution, not its random numbers).

    filler: a FillerParameter or None. Without one, a `default` number fills the array, and the default "msra" draws
    a weight: Caffe would leave it 0, and a network of zeros has nothing to show.
    """
    if filler is None:
        filler = FillerParameter(type="msra") if default == "msra" else FillerParameter(value=float(default))
    shape, kind = tuple(shape), filler.type
    if kind == "constant":
        return np.full(shape, filler.value, np.float32)
    if kind == "gaussian":
        return _line(rng.standard_normal(shape, np.float32), filler.mean, filler.std)
    if kind == "uniform":
        return _uniform(shape, filler.min, filler.max, rng)
    if kind == "xavier":
        bound = float(np.sqrt(3.0 / _fan(shape, filler)))
        return _uniform(shape, -bound, bound, rng)
    if kind == "msra":
        return _line(rng.standard_normal(shape, np.float32), 0.0, float(np.sqrt(2.0 / _fan(shape, filler))))
    if kind == "positive_unitball":
        values = np.asarray(rng.random(shape, np.float32))
        values /= values.sum(axis=tuple(range(1, len(shape))), keepdims=True)
        return values
    if kind == "bilinear" and len(shape) == 4 and shape[2] == shape[3]:
        return _bilinear(shape)
    raise UnsupportedError(f"{where}: filler '{kind}' for a parameter of shape {list(shape)}")


def _uniform(shape: Sequence[int], low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    return _line(rng.random(tuple(shape), np.float32), low, high - low)


def _line(drawn: Any, start: float, scale: float) -> np.ndarray:
    """start + scale * drawn, in the memory of `drawn`, which may be most of what there is."""
    drawn = np.asarray(drawn)  # numpy draws a bare number for a shape without axes
    drawn *= np.float32(scale)
    drawn += np.float32(start)
    return drawn


def _fan(shape: Sequence[int], filler: Any) -> float:
    """Inputs of one output, outputs of one input, or their mean, as `variance_norm` says."""
    if not shape:
        return 1.0
    into, out = prod(shape) / shape[0], prod(shape) / (shape[1] if len(shape) > 1 else 1)
    return {"FAN_IN": into, "FAN_OUT": out, "AVERAGE": (into + out) / 2}[enum_name(filler, "variance_norm")]


def _bilinear(shape: Sequence[int]) -> np.ndarray:
    size = shape[3]
    factor = ceil(size / 2)
    line = 1 - np.abs(np.arange(size) / factor - (size - 1) / (2 * factor))
    return np.broadcast_to(np.outer(line, line), shape).astype(np.float32)
