"""Layers that copy, pick or normalize, for the float64 oracle: forward, and the top-down rule as plain loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from ebp_cuda.graph import Node
from oracle.matrices import Array, param


def crop(node: Node, xs: Sequence[Array]) -> list[Array]:
    start = (0,) * node.attrs["axis"] + tuple(node.attrs["offsets"])
    return [xs[0][tuple(slice(o, o + n) for o, n in zip(start, xs[1].shape, strict=True))]]


def embed(node: Node, xs: Sequence[Array]) -> list[Array]:
    rows = param(node, "weight")[xs[0].astype(int)]
    bias = param(node, "bias")
    return [rows if bias is None else rows + bias]


def maxima(node: Node, x: Array) -> tuple[Array, Array]:
    """The k largest along the last axis and where they stand; of equal numbers the last first."""
    k = node.attrs["k"]
    order = np.lexsort((-np.broadcast_to(np.arange(x.shape[-1]), x.shape), -x), axis=-1)[..., :k]
    return np.take_along_axis(x, order, -1), order


def sorted_axis(node: Node, x: Array) -> Array:
    axis = node.attrs["axis"]
    return x.reshape(len(x), -1) if axis is None else np.moveaxis(x, axis, -1)


def arg_max(node: Node, xs: Sequence[Array]) -> list[Array]:
    values, places = maxima(node, sorted_axis(node, xs[0]))
    found = {"indices": [places], "values": [values], "both": [places, values]}[node.attrs["gives"]]
    if node.attrs["axis"] is None:
        ones = (1,) * (max(xs[0].ndim, 3) - 3)
        return [np.stack(found, 1).reshape(len(values), len(found), node.attrs["k"], *ones).astype(float)]
    return [np.moveaxis(found[0], -1, node.attrs["axis"]).astype(float)]


def unpool(node: Node, xs: Sequence[Array]) -> list[Array]:
    x, mask = xs
    a = node.attrs
    plane = a["size"] or [n * s - m for n, s, m in zip(x.shape[2:], a["scale"], a["less"], strict=True)]
    y = np.zeros((*x.shape[:2], plane[0] * plane[1]))
    for at in product(*map(range, x.shape)):
        y[at[0], at[1], int(mask[at])] = x[at]
    return [y.reshape(*x.shape[:2], *plane)]


def total(node: Node, x: Array) -> Array:
    axes, kind = tuple(node.attrs["axes"]), node.attrs["kind"]
    part = {"sum": x, "mean": x, "asum": np.abs(x), "sumsq": x**2}[kind]
    return part.mean(axes) if kind == "mean" else part.sum(axes)


def mvn(node: Node, xs: Sequence[Array]) -> list[Array]:
    axes = tuple(node.attrs["axes"])
    centered = xs[0] - xs[0].mean(axes, keepdims=True)
    return [centered / deviation(node, xs[0])]


def deviation(node: Node, x: Array) -> Array | float:
    return 1.0 if node.attrs["eps"] is None else x.std(tuple(node.attrs["axes"]), keepdims=True) + node.attrs["eps"]


def normalize(node: Node, xs: Sequence[Array]) -> list[Array]:
    norm = np.sqrt((xs[0] ** 2).sum(tuple(node.attrs["axes"]), keepdims=True) + node.attrs["eps"])
    return [xs[0] / norm * param(node, "scale")]


FORWARD: dict[str, Callable[[Node, Sequence[Array]], list[Array]]] = {
    "select": lambda n, xs: [np.take(xs[0], n.attrs["indices"], n.attrs["axis"])],
    "tile": lambda n, xs: [np.tile(xs[0], n.attrs["repeats"])],
    "expand": lambda n, xs: [np.broadcast_to(xs[0], xs[1].shape)],
    "crop": crop,
    "embed": embed,
    "arg_max": arg_max,
    "unpool": unpool,
    "reduce": lambda n, xs: [total(n, xs[0]) * n.attrs["coefficient"]],
    "mvn": mvn,
    "normalize": normalize,
}


def collect(node: Node, xs: Sequence[Array], p: Array) -> list[Array]:
    """Every number of the top gives its p to the one of the first input that it is a copy of."""
    x = xs[0]
    numbers = np.arange(1, x[0].size + 1, dtype=float).reshape(1, *x.shape[1:])
    tags = FORWARD[node.op](node, [np.repeat(numbers, len(x), 0), *xs[1:]])[0]
    below = np.zeros((len(x), x[0].size + 1))
    for at in product(*map(range, p.shape)):
        below[at[0], int(tags[at])] += p[at]
    unused = [np.zeros_like(other) for other in xs[1:]]
    return [below[:, 1:].reshape(x.shape), *unused]


def arg_max_rule(node: Node, x: Array, p: Array) -> Array:
    axis = node.attrs["axis"]
    flat = sorted_axis(node, x)
    _, places = maxima(node, flat)
    p = p.reshape(len(p), -1, node.attrs["k"]).sum(1) if axis is None else np.moveaxis(p, axis, -1)
    below = np.zeros_like(flat)
    for at in product(*map(range, places.shape)):
        below[(*at[:-1], places[at])] += p[at]
    return below.reshape(x.shape) if axis is None else np.moveaxis(below, -1, axis)


def reduce_rule(node: Node, x: Array, p: Array, rules: str) -> Array:
    axes, kind = tuple(node.attrs["axes"]), node.attrs["kind"]
    p = np.expand_dims(p, axes)
    if rules == "caffe":
        ones = np.ones_like(x)
        slope = {"sum": ones, "mean": ones * total(node, x).size / x.size, "asum": np.sign(x), "sumsq": 2 * x}[kind]
        return p * node.attrs["coefficient"] * slope
    part = {"asum": np.abs(x), "sumsq": x**2}.get(kind, np.maximum(x, 0))
    part = np.where(part.sum(axes, keepdims=True) < np.finfo(part.dtype).tiny, 1, part)
    return p * part / part.sum(axes, keepdims=True)


def mvn_rule(node: Node, x: Array, y: Array, p: Array, rules: str) -> Array:
    if rules == "conserving":
        return p
    axes = tuple(node.attrs["axes"])
    centered = p - p.mean(axes, keepdims=True)
    if node.attrs["eps"] is None:
        return centered
    return (centered - y * (p * y).mean(axes, keepdims=True)) / deviation(node, x)


RULES: dict[str, Callable[[Node, Sequence[Array], Array, Array, str], list[Array]]] = {
    **dict.fromkeys(("select", "tile", "expand", "crop", "unpool"), lambda n, xs, y, p, rules: collect(n, xs, p)),
    "embed": lambda n, xs, y, p, rules: [p.sum(-1)],
    "arg_max": lambda n, xs, y, p, rules: [arg_max_rule(n, xs[0], p)],
    "reduce": lambda n, xs, y, p, rules: [reduce_rule(n, xs[0], p, rules)],
    "mvn": lambda n, xs, y, p, rules: [mvn_rule(n, xs[0], y, p, rules)],
    "normalize": lambda n, xs, y, p, rules: [p],
    "threshold": lambda n, xs, y, p, rules: [p],
}
