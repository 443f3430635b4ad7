"""The float64 oracle of what may be asked besides the map of a class, each restated by its definition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ebp_cuda.graph import Graph
from oracle.matrices import Array
from oracle.sweep import attribute, one_hot


def classes_at(
    graph: Graph,
    values: Mapping[str, Array],
    top: str,
    layer: str,
    weights: Array,
    contrast: str | None = None,
    rules: str = "caffe",
) -> Array:
    """What every class leaves at a place, [N, classes]: a whole sweep for each, and its map weighed position by
    position. values: of N images. weights: [h, w]."""
    shares = []
    for index in range(values[top].shape[1]):
        seed = one_hot(values[top], [index] * len(values[top]))
        p = attribute(graph, values, top, seed, layer, contrast, rules)
        shares.append((p.sum(axis=1) * weights).reshape(len(p), -1).sum(axis=1))
    return np.stack(shares, axis=1)
