"""Functions, comparisons and sums along axes that Caffe has not, for the float64 oracle: forward and rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ebp_cuda.graph import Node
from oracle.matrices import Array, param

UNARY: dict[str, Callable[[Array], Array]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
}

SLOPES: dict[str, Callable[[Array], Array]] = {
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
    "tan": lambda x: 1 / np.cos(x) ** 2,
    "sinh": np.cosh,
    "cosh": np.sinh,
    "asin": lambda x: 1 / np.sqrt(1 - x**2),
    "acos": lambda x: -1 / np.sqrt(1 - x**2),
    "atan": lambda x: 1 / (1 + x**2),
    "asinh": lambda x: 1 / np.sqrt(x**2 + 1),
    "acosh": lambda x: 1 / np.sqrt(x**2 - 1),
    "atanh": lambda x: 1 / (1 - x**2),
    "softsign": lambda x: 1 / (1 + np.abs(x)) ** 2,
    **dict.fromkeys(("sign", "floor", "ceil", "round", "trunc"), np.zeros_like),
}


def shrink(node: Node, x: Array) -> Array:
    lambd, bias = node.attrs["lambd"], node.attrs["bias"]
    return np.where(x > lambd, x - bias, 0) + np.where(x < -lambd, x + bias, 0)


def compare(node: Node, xs: Sequence[Array]) -> Array:
    a, b = xs if len(xs) == 2 else (xs[0], param(node, "bound"))
    held = {
        "equal": a == b,
        "greater": a > b,
        "greater_equal": a >= b,
        "less": a < b,
        "less_equal": a <= b,
    }
    return held[node.attrs["kind"]] * 1.0


def operands(node: Node, xs: Sequence[Array]) -> list[Array]:
    queue = list(xs)
    return [param(node, name) if name in node.params else queue.pop(0) for name in ("mask", "first", "second")]


def where(node: Node, xs: Sequence[Array]) -> Array:
    mask, first, second = operands(node, xs)
    return np.where(mask != 0, first, second)


def where_rule(node: Node, xs: Sequence[Array], p: Array) -> list[Array]:
    chosen = np.broadcast_to(operands(node, xs)[0] != 0, p.shape)
    parts = {"mask": np.zeros_like(p), "first": np.where(chosen, p, 0), "second": np.where(chosen, 0, p)}
    return [part for name, part in parts.items() if name not in node.params]


def weighted_sum(node: Node, x: Array) -> Array:
    return np.apply_along_axis(lambda line: param(node, "weight") @ line, node.attrs["axis"], x)


def weighted_sum_rule(node: Node, x: Array, p: Array) -> Array:
    """Line by line: every output gives to the elements of its line what they added to it, or evenly."""
    axis, weight = node.attrs["axis"], param(node, "weight")
    lines, tops = np.moveaxis(x, axis, -1), np.moveaxis(p, axis, -1)
    below = np.zeros_like(lines)
    for at in np.ndindex(lines.shape[:-1]):
        for row, top in zip(weight, tops[at], strict=True):
            part = np.maximum(row * lines[at], 0)
            part = (row != 0) * 1.0 if part.sum() == 0 else part
            if part.sum():
                below[at] += top * part / part.sum()
    return np.moveaxis(below, -1, axis)


def logsumexp(node: Node, x: Array) -> Array:
    return np.log(np.exp(x).sum(tuple(node.attrs["axes"])))


def logsumexp_rule(node: Node, x: Array, p: Array) -> Array:
    axes = tuple(node.attrs["axes"])
    return np.expand_dims(p, axes) * np.exp(x) / np.exp(x).sum(axes, keepdims=True)


def product_rule(node: Node, x: Array, p: Array) -> Array:
    """x_i dy/dx_i is y for every factor: all have the same part."""
    return np.expand_dims(p * p.size / x.size, node.attrs["axes"]) * np.ones_like(x)


def unit_norm(node: Node, x: Array) -> Array:
    size = np.abs(x).sum if node.attrs["order"] == 1 else lambda **k: np.sqrt((x**2).sum(**k))
    length = size(axis=node.attrs["axis"], keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length != 0)


def log_softmax(node: Node, x: Array) -> Array:
    return x - np.log(np.exp(x).sum(node.attrs["axis"], keepdims=True))


def log_softmax_rule(node: Node, y: Array, p: Array, rules: str) -> Array:
    return p if rules == "conserving" else p - np.exp(y) * p.sum(node.attrs["axis"], keepdims=True)


def _passes(slope: Callable[[Node, Array], Array]) -> Callable[..., list[Array]]:
    """The gradient in "caffe", p itself in "conserving"."""
    return lambda n, xs, y, p, rules: [p if rules == "conserving" else p * slope(n, xs[0])]


FORWARD: dict[str, Callable[[Node, Sequence[Array]], list[Array]]] = {
    **{name: lambda n, xs, f=f: [f(xs[0])] for name, f in UNARY.items()},
    "shrink": lambda n, xs: [shrink(n, xs[0])],
    "thresholded_relu": lambda n, xs: [np.where(xs[0] > n.attrs["alpha"], xs[0], 0)],
    "at_least": lambda n, xs: [np.maximum(xs[0], param(n, "least"))],
    "powers": lambda n, xs: [xs[0] ** param(n, "exponent")],
    "compare": lambda n, xs: [compare(n, xs)],
    "where": lambda n, xs: [where(n, xs)],
    "weighted_sum": lambda n, xs: [weighted_sum(n, xs[0])],
    "logsumexp": lambda n, xs: [logsumexp(n, xs[0])],
    "product": lambda n, xs: [np.prod(xs[0], tuple(n.attrs["axes"]))],
    "unit_norm": lambda n, xs: [unit_norm(n, xs[0])],
    "log_softmax": lambda n, xs: [log_softmax(n, xs[0])],
}

RULES: dict[str, Callable[[Node, Sequence[Array], Array, Array, str], list[Array]]] = {
    **{name: _passes(lambda n, x, f=f: f(x)) for name, f in SLOPES.items()},
    "shrink": _passes(lambda n, x: (np.abs(x) > n.attrs["lambd"]) * 1.0),
    "thresholded_relu": _passes(lambda n, x: (x > n.attrs["alpha"]) * 1.0),
    "at_least": _passes(lambda n, x: (x > param(n, "least")) * 1.0),
    "powers": _passes(lambda n, x: param(n, "exponent") * x ** (param(n, "exponent") - 1)),
    "compare": lambda n, xs, y, p, rules: [np.zeros_like(x) for x in xs],
    "where": lambda n, xs, y, p, rules: where_rule(n, xs, p),
    "weighted_sum": lambda n, xs, y, p, rules: [weighted_sum_rule(n, xs[0], p)],
    "logsumexp": lambda n, xs, y, p, rules: [logsumexp_rule(n, xs[0], p)],
    "product": lambda n, xs, y, p, rules: [
        np.broadcast_to(np.expand_dims(p * y.size / xs[0].size, n.attrs["axes"]), xs[0].shape)
    ],
    "unit_norm": lambda n, xs, y, p, rules: [p],
    "log_softmax": lambda n, xs, y, p, rules: [log_softmax_rule(n, y, p, rules)],
}
