"""The float64 oracle of what may be asked besides the map of a class, each restated by its definition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ebp_cuda.graph import Graph
from oracle.matrices import Array
from oracle.sweep import attribute, one_hot, relevance


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


def place_share(plane: tuple[int, ...], pixel=None, box=None, mask=None) -> Array:
    """How probability 1 lies over a plane: at a pixel, evenly over a box, or by a mask."""
    share = np.zeros(plane) if mask is None else np.array(mask, float)
    if pixel is not None:
        share[tuple(pixel)] = 1
    if box is not None:
        half = len(box) // 2
        share[tuple(slice(a, b) for a, b in zip(box[:half], box[half:], strict=True))] = 1
    return share / share.sum()


def class_seed(top: Array, index: int, share: Array | None = None) -> Array:
    """Probability 1 on a class of every image [N, classes, ...], at a place or by the softmax over positions."""
    if share is None:
        return one_hot(top, [index] * len(top))
    seed = np.zeros_like(top)
    seed[:, index] = share
    return seed


def similarity_seed(top: Array, embedding: Array, share: Array | None = None) -> Array:
    """Unit by unit: what an excited feature adds to the similarity, by a weight of the embedding above 0."""
    seed = np.zeros_like(top)
    for at in np.ndindex(top.shape):
        weight = 1.0 if share is None else share[at[2:]]
        seed[at] = max(top[at], 0) * max(embedding[at[1]], 0) * weight
    return seed / seed.reshape(len(seed), -1).sum(1).reshape(-1, *[1] * (seed.ndim - 1))


def less_the_mean_of_the_others(seeds: list[Array], index: int) -> Array:
    """The seed of a class less the mean of the seeds of all other classes."""
    others = [seed for other, seed in enumerate(seeds) if other != index]
    return seeds[index] - sum(others) / len(others)


def truncated(excited: Array, other: Array, percentile: float) -> Array:
    """Truncated contrastive EBP of one image's layer (Williford et al., ECCV 2020), unit by unit.

    Both scaled to sum to 1; units go from the smallest relevance on until `percentile` percent of the mass is passed
    over; of the units from there on what exceeds the other's relevance remains.
    """
    p, q = excited / excited.sum(), other / other.sum()
    left, passed = np.zeros_like(p), 0.0
    for at in np.argsort(p, axis=None, kind="stable"):
        passed += p.flat[at]
        if passed >= percentile / 100 * p.sum():
            left.flat[at] = max(p.flat[at] - q.flat[at], 0)
    return left


def weighted_subtree(
    graph: Graph,
    values: Mapping[str, Array],
    seed: Array,
    top: str,
    layer: str,
    slopes: Mapping[str, tuple[Array, Array]],
    subtrees: int,
    rules: str = "conserving",
    merge: str = "sum",
) -> Array:
    """Weighted subtree EBP of one image (Williford et al., ECCV 2020), by its steps.

    seed: of the mate at the top. slopes: by value, the derivatives of the similarities to mate and nonmate. At every
    value the unit with the largest -d nonmate, of those whose d mate is not negative, goes down alone, with the
    relevance that it has; the heaviest maps, each scaled to a maximum of 1, are added by weights scaled from 0 to 1.
    """
    excited = relevance(graph, values, {top: seed}, rules)
    found = []
    for value, (mate, nonmate) in slopes.items():
        gain = np.where(mate >= 0, -nonmate, 0)
        at = np.unravel_index(gain.argmax(), gain.shape)
        alone = np.zeros_like(excited[value])
        alone[at] = excited[value][at]
        map_ = relevance(graph, values, {value: alone}, rules)[layer].sum(1)
        if gain[at] > 0 and map_.max() > 0:
            found.append((gain[at], map_ / map_.max()))
    found = sorted(found, key=lambda pair: pair[0])[-subtrees:]
    weights = np.array([weight for weight, _ in found])
    spread = np.ones(len(found)) if np.ptp(weights) == 0 else (weights - weights.min()) / np.ptp(weights)
    parts = [weight * map_ for weight, (_, map_) in zip(spread, found, strict=True)]
    total = sum(parts) if merge == "sum" else np.max(parts, 0)
    return total / total.sum()
