"""The forward half of the float64 oracle: every operation of the graph vocabulary on numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ebp_cuda.graph import Graph, Node
from oracle.functions import FORWARD as FUNCTIONS
from oracle.matrices import MATRICES, Array, apply_matrix, max_pool_winners, param
from oracle.picking import FORWARD as PICKING


def lrn(node: Node, x: Array) -> Array:
    size, alpha, beta, k = (node.attrs[name] for name in ("size", "alpha", "beta", "k"))
    before = (size - 1) // 2
    total = np.zeros_like(x)
    if node.attrs.get("region", "across") == "across":
        channels = x.shape[1]
        for c in range(channels):
            low, high = max(c - before, 0), min(c - before + size, channels)
            total[:, c] = (x[:, low:high] ** 2).sum(axis=1)
        count = size
    else:
        height, width = x.shape[2:]
        for row, column in product(range(height), range(width)):
            rows = slice(max(row - before, 0), row - before + size)
            columns = slice(max(column - before, 0), column - before + size)
            total[:, :, row, column] = (x[:, :, rows, columns] ** 2).sum(axis=(2, 3))
        count = size * size
    return x / (k + alpha / count * total) ** beta


def per_channel(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm_scale(node: Node) -> Array:
    scale = 1 / np.sqrt(param(node, "var") + node.attrs["eps"])
    weight = param(node, "weight")
    return scale if weight is None else scale * weight


def batch_norm(node: Node, x: Array) -> Array:
    y = (x - per_channel(param(node, "mean"), x)) * per_channel(batch_norm_scale(node), x)
    bias = param(node, "bias")
    return y if bias is None else y + per_channel(bias, x)


def affine(node: Node, x: Array) -> Array:
    scale, shift = param(node, "scale"), param(node, "shift")
    y = x if scale is None else x * scale
    return y if shift is None else y + shift


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def slope(node: Node, x: Array) -> Array | float:
    """What a leaky or parametric ReLU multiplies negative inputs with."""
    if node.op == "leaky_relu":
        return node.attrs["slope"]
    weight = param(node, "weight")
    return weight.item() if weight.size == 1 else per_channel(weight, x)


def gelu_line(x: Array) -> Array:
    """What the tanh form of GELU takes the tanh of."""
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def standardize(node: Node, x: Array) -> Array:
    if node.attrs["groups"]:
        flat = x.reshape(len(x), node.attrs["groups"], -1)
        return standardize(replace(node, attrs={"axes": (2,), "eps": node.attrs["eps"]}), flat).reshape(x.shape)
    axes = tuple(node.attrs["axes"])
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + node.attrs["eps"])


UNARY: dict[str, Callable[[Node, Array], Array]] = {
    "relu": lambda n, x: np.maximum(x, 0),
    "leaky_relu": lambda n, x: np.where(x > 0, x, slope(n, x) * x),
    "prelu": lambda n, x: np.where(x > 0, x, slope(n, x) * x),
    "elu": lambda n, x: n.attrs["scale"] * np.where(x > 0, x, n.attrs["alpha"] * np.expm1(np.minimum(x, 0))),
    "clip": lambda n, x: np.clip(x, n.attrs.get("min"), n.attrs.get("max")),
    "abs": lambda n, x: np.abs(x),
    "exp": lambda n, x: np.exp(n.attrs.get("scale", 1) * x + n.attrs.get("shift", 0)),
    "log": lambda n, x: np.log(n.attrs.get("scale", 1) * x + n.attrs.get("shift", 0)) * n.attrs.get("factor", 1),
    "sqrt": lambda n, x: np.sqrt(x),
    "sigmoid": lambda n, x: sigmoid(x),
    "tanh": lambda n, x: np.tanh(x),
    "erf": lambda n, x: np.vectorize(math.erf)(x),
    "softplus": lambda n, x: np.logaddexp(0, x),
    "silu": lambda n, x: x * sigmoid(n.attrs.get("beta", 1) * x),
    "threshold": lambda n, x: (x > n.attrs["threshold"]) * 1.0,
    "hard_sigmoid": lambda n, x: np.clip(n.attrs["alpha"] * x + n.attrs["beta"], 0, 1),
    "hard_swish": lambda n, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu": lambda n, x: x * (0.5 + 0.5 * np.tanh(gelu_line(x)) if n.attrs.get("tanh") else normal_cdf(x)),
    "power": lambda n, x: (n.attrs["shift"] + n.attrs["scale"] * x) ** n.attrs["power"],
    "softmax": lambda n, x: softmax(x, n.attrs["axis"]),
    "lrn": lrn,
    "batch_norm": batch_norm,
    "affine": affine,
    "identity": lambda n, x: x,
    "standardize": standardize,
}


def slices(node: Node, rank: int) -> tuple[slice, ...]:
    index = [slice(None)] * rank
    steps = node.attrs.get("steps") or (1,) * len(node.attrs["axes"])
    for axis, start, end, step in zip(node.attrs["axes"], node.attrs["starts"], node.attrs["ends"], steps, strict=True):
        index[axis] = slice(start, end, step)
    return tuple(index)


def flatten(node: Node, x: Array) -> Array:
    return x.reshape(*x.shape[: node.attrs["axis"] % x.ndim], -1)


def reshape(node: Node, x: Array) -> Array:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(node.attrs["shape"])])


def pad(node: Node, x: Array) -> Array:
    return np.pad(x, node.attrs["pads"], constant_values=node.attrs.get("value", 0))


def add(node: Node, xs: Sequence[Array]) -> Array:
    coefficients = node.attrs.get("coefficients") or (1,) * len(xs)
    return sum(c * x for c, x in zip(coefficients, xs, strict=True))


MOVE: dict[str, Callable[[Node, Array], Array]] = {
    "slice": lambda n, x: x[slices(n, x.ndim)],
    "flatten": flatten,
    "squeeze": lambda n, x: np.squeeze(x, n.attrs["axes"]),
    "unsqueeze": lambda n, x: np.expand_dims(x, n.attrs["axes"]),
    "reshape": reshape,
    "transpose": lambda n, x: x.transpose(n.attrs["perm"]),
    "pad": pad,
}


def resize_to(node: Node, like: Array) -> Node:
    """A resize whose second input gives the size, as one of that size."""
    return replace(node, attrs={**node.attrs, "size": like.shape[2:]})


def forward_node(node: Node, xs: Sequence[Array]) -> list[Array]:
    """The outputs of one node, float64."""
    if node.op == "resize" and len(xs) > 1:
        return forward_node(resize_to(node, xs[1]), xs[:1])
    if node.op in MATRICES:
        return [apply_matrix(node, xs[0])]
    if node.op in PICKING:
        return PICKING[node.op](node, xs)
    if node.op in FUNCTIONS:
        return FUNCTIONS[node.op](node, xs)
    if node.op in UNARY:
        return [UNARY[node.op](node, xs[0])]
    if node.op in MOVE:
        return [MOVE[node.op](node, xs[0])]
    if node.op in ("max_pool", "adaptive_max_pool"):
        return list(max_pool_winners(node, xs[0]))[: len(node.outputs)]  # Caffe's second top holds the positions
    if node.op == "sum":
        return [add(node, xs)]
    if node.op == "max":
        return [np.maximum.reduce(list(xs))]
    if node.op == "mul":
        return [xs[0] * xs[1]]
    if node.op == "concat":
        return [np.concatenate(xs, node.attrs["axis"])]
    if node.op == "split":
        return np.split(xs[0], np.cumsum(node.attrs["sizes"])[:-1], node.attrs["axis"])
    raise NotImplementedError(node.op)


def forward(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    """Every value of the graph, float64, by name."""
    values = {name: np.asarray(x, dtype=np.float64) for name, x in inputs.items()}
    for node in graph.nodes:
        for name, y in zip(node.outputs, forward_node(node, [values[v] for v in node.inputs]), strict=True):
            values[name] = y
    return values
