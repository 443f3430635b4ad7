"""The top-down rule of every operation, for the float64 oracle (see oracle.py for what the two rule sets say)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ebp_cuda.graph import Node
from oracle.forward import gelu_line, normal_cdf, resize_to, sigmoid, slices, slope
from oracle.functions import RULES as FUNCTIONS
from oracle.matrices import MATRICES, Array, max_pool_winners
from oracle.picking import RULES as PICKING

COPIED_BY_CAFFE = ("lrn", "batch_norm", "affine", "identity", "standardize")
POOLED = ("avg_pool", "adaptive_avg_pool", "mean")


def divide(p: Array, z: Array) -> Array:
    """p / z, and 0 where the normalizer z counts as 0."""
    return np.divide(p, z, out=np.zeros_like(p), where=~counts_as_zero(z))


def counts_as_zero(z: Array) -> Array:
    """Whether a normalizer lies below the smallest normal number of the dtype that computes, here float64."""
    return np.abs(z) < np.finfo(z.dtype).tiny


def caffe_share(matrix: Array, x: Array, p: Array) -> Array:
    positive = np.maximum(matrix, 0)
    return x * (divide(p, x @ positive.T) @ positive)


def conserving_share(matrix: Array, window: Array, x: Array, p: Array) -> Array:
    """`window` has a 1 where an input belongs to the output's window, whatever its weight."""
    plus, minus = np.maximum(matrix, 0), np.maximum(-matrix, 0)
    x_plus, x_minus = np.maximum(x, 0), np.maximum(-x, 0)
    z = x_plus @ plus.T + x_minus @ minus.T
    r = divide(p, z)
    evenly = divide(np.where(counts_as_zero(z), p, 0), np.broadcast_to(window.sum(axis=1), p.shape))
    return x_plus * (r @ plus) + x_minus * (r @ minus) + evenly @ window


def share(node: Node, x: Array, p: Array, rules: str, scale: Array | None, inside: Array | None, sign: int) -> Array:
    """Layers with a dense matrix; see layer_rule for `scale`, `inside` and `sign`."""
    matrix, _ = MATRICES[node.op](node, x.shape[1:])
    flat, top = x.reshape(len(x), -1), p.reshape(len(p), -1)
    if rules == "conserving":
        if scale is not None:
            matrix = matrix * scale.reshape(-1, 1)
        window, _ = MATRICES[node.op](node, x.shape[1:], ones=True)
        window = window if inside is None else window * inside.reshape(1, -1)
        return conserving_share(sign * matrix, window, flat, top).reshape(x.shape)
    if node.op in POOLED:
        return pooled_share(matrix, flat, top).reshape(x.shape)
    if node.op == "conv_transpose":
        return (top @ (sign * matrix)).reshape(x.shape)
    return caffe_share(sign * matrix, flat, top).reshape(x.shape)


def pooled_share(matrix: Array, x: Array, p: Array) -> Array:
    total = x @ (matrix > 0).T
    return x * (np.where(total > 0, divide(p, total), 0) @ (matrix > 0))


def sum_rule(node: Node, xs: Sequence[Array], y: Array, p: Array, rules: str) -> list[Array]:
    if rules == "caffe":
        return [x * divide(p, y) for x in xs]
    coefficients = node.attrs.get("coefficients") or (1,) * len(xs)
    parts = [np.maximum(c * x, 0) for c, x in zip(coefficients, xs, strict=True)]
    total = sum(parts)
    r = divide(p, total)
    return [part * r + np.where(counts_as_zero(total), p / len(xs), 0) for part in parts]


def max_rule(xs: Sequence[Array], p: Array) -> list[Array]:
    """All of p to the winner: of the first two the later one on a tie, then only a larger one displaces it."""
    winner = np.where(xs[0] > xs[1], 0, 1)
    best = np.maximum(xs[0], xs[1])
    for i, x in enumerate(xs[2:], 2):
        winner = np.where(x > best, i, winner)
        best = np.maximum(best, x)
    return [np.where(winner == i, p, 0) for i in range(len(xs))]


def mul_rule(xs: Sequence[Array], p: Array) -> list[Array]:
    first = next(i for i, x in enumerate(xs) if x.shape == p.shape)
    return [p if i == first else np.zeros_like(x) for i, x in enumerate(xs)]


def max_pool_rule(node: Node, x: Array, p: Array) -> Array:
    _, winners = max_pool_winners(node, x)
    below = np.zeros((x.shape[0] * x.shape[1], int(np.prod(x.shape[2:]))))
    rows = np.arange(len(below)).reshape(-1, 1)
    np.add.at(below, (rows, winners.reshape(len(below), -1)), p.reshape(len(below), -1))
    return below.reshape(x.shape)


def derivative(node: Node, x: Array, y: Array) -> Array:
    """dy/dx of an element-wise function, with the original's choice at the kinks (0 where x is exactly 0)."""
    a = node.attrs
    match node.op:
        case "relu":
            return (x > 0) * 1.0
        case "leaky_relu" | "prelu":
            return np.where(x > 0, 1.0, slope(node, x))
        case "elu":
            return np.where(x > 0, a["scale"], y + a["scale"] * a["alpha"])
        case "clip":
            low = -np.inf if a.get("min") is None else a["min"]
            high = np.inf if a.get("max") is None else a["max"]
            return ((x > low) & (x < high)) * 1.0
        case "abs":
            return np.sign(x)
        case "exp":
            return a.get("scale", 1) * y
        case "log":
            return a.get("factor", 1) * a.get("scale", 1) / (a.get("scale", 1) * x + a.get("shift", 0))
        case "sqrt":
            return 0.5 / y
        case "sigmoid":
            return y * (1 - y)
        case "tanh":
            return 1 - y * y
        case "erf":
            return 2 / np.sqrt(np.pi) * np.exp(-x * x)
        case "softplus":
            return sigmoid(x)
        case "silu":
            gate = sigmoid(a.get("beta", 1) * x)
            return gate * (1 + a.get("beta", 1) * x * (1 - gate))
        case "hard_sigmoid":
            return np.where((y > 0) & (y < 1), a["alpha"], 0.0)
        case "hard_swish":
            return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))
        case "gelu" if a.get("tanh"):
            line, steep = gelu_line(x), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
            return 0.5 * (1 + np.tanh(line)) + 0.5 * x * steep / np.cosh(line) ** 2
        case "gelu":
            return normal_cdf(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
        case "power":
            return a["power"] * a["scale"] * (a["shift"] + a["scale"] * x) ** (a["power"] - 1)
    raise NotImplementedError(node.op)


def unary_rule(node: Node, x: Array, y: Array, p: Array, rules: str) -> Array:
    if rules == "conserving" or node.op in COPIED_BY_CAFFE:
        return p
    if node.op == "softmax":
        return y * (p - (p * y).sum(axis=node.attrs["axis"], keepdims=True))
    return p * derivative(node, x, y)


def move_rule(node: Node, xs: Sequence[Array], ps: Sequence[Array]) -> list[Array]:
    x, p = xs[0], ps[0]
    match node.op:
        case "concat":
            axis = node.attrs["axis"]
            return np.split(p, np.cumsum([x.shape[axis] for x in xs])[:-1], axis)
        case "split":
            return [np.concatenate(ps, node.attrs["axis"])]
        case "slice":
            below = np.zeros(x.shape)
            below[slices(node, x.ndim)] = p
            return [below]
        case "flatten" | "reshape" | "squeeze" | "unsqueeze":
            return [p.reshape(x.shape)]
        case "transpose":
            return [p.transpose(np.argsort(node.attrs["perm"]))]
        case "pad":
            inside = tuple(slice(b, b + n) for (b, _), n in zip(node.attrs["pads"], x.shape, strict=True))
            return [p[inside]]
    raise NotImplementedError(node.op)


def layer_rule(
    node: Node,
    xs: Sequence[Array],
    ys: Sequence[Array],
    ps: Sequence[Array],
    rules: str = "caffe",
    scale: Array | None = None,
    inside: Array | None = None,
    sign: int = 1,
) -> list[Array]:
    """p of every input of one node, from the p of its outputs.

    xs, ys, ps: inputs, outputs and p of the outputs, float64, one class column. `scale` [outputs of one sample]:
    factors that a conserving contraction takes over from the batch norms and scales behind it. `inside` [inputs of
    one sample]: 0 where the input is padding, onto which nothing is spread. `sign` -1: the layer stands for its
    negated weights.
    """
    match node.op:
        case "sum":
            return sum_rule(node, xs, ys[0], ps[0], rules)
        case "max":
            return max_rule(xs, ps[0])
        case "mul":
            return mul_rule(xs, ps[0])
        case "max_pool" | "adaptive_max_pool":
            return [max_pool_rule(node, xs[0], ps[0])]
        case "concat" | "split" | "slice" | "flatten" | "reshape" | "squeeze" | "unsqueeze" | "transpose" | "pad":
            return move_rule(node, xs, ps)
    if node.op == "resize" and len(xs) > 1:
        below = layer_rule(resize_to(node, xs[1]), xs[:1], ys, ps, rules)
        return [*below, np.zeros_like(xs[1])]
    if node.op in FUNCTIONS:
        return FUNCTIONS[node.op](node, xs, ys[0], ps[0], rules)
    if node.op in PICKING:
        return PICKING[node.op](node, xs, ys[0], ps[0], rules)
    if node.op in MATRICES:
        return [share(node, xs[0], ps[0], rules, scale, inside, sign)]
    return [unary_rule(node, xs[0], ys[0], ps[0], rules)]
