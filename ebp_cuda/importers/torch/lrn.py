"""Local response normalization in an exported module, where it is a dozen ATen calls and none of its own.

x / (k + alpha * avg) ** beta, where avg is the average of x squared over neighboring channels (Krizhevsky et al.
2012) or over a square window of each channel. Covers torch's LocalResponseNorm and the modules of ported Caffe
networks: padding inside or before the pool, `unsqueeze` or `view`, `x.pow(2)` or `x * x`, `x / d` or `x * d ** -beta`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

_RESHAPES = ("view", "reshape", "squeeze", "unsqueeze", "clone", "alias", "_unsafe_view")


def op_name(node: Node) -> str:
    """ATen name without namespace, overload and the underscore of in-place calls, "conv2d"; "namespace::name" of other
    operators; else ""."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return ""
    name = target._schema.name.removeprefix("aten::")
    return name.removesuffix("_") if target._schema.is_mutable else name


def bound_args(node: Node) -> dict[str, Any]:
    """Arguments of an ATen call by schema name, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    given = iter(node.args)
    bound = {}
    for argument in node.target._schema.arguments:
        default = argument.default_value if argument.has_default_value() else None
        fallback = default if argument.kwarg_only else next(given, default)
        bound[argument.name] = node.kwargs.get(argument.name, fallback)
    return bound


@dataclass(frozen=True)
class LocalResponse:
    """The node that is normalized, and the attrs of graph.py's "lrn"."""

    x: Node
    size: int
    alpha: float
    beta: float
    k: float
    region: str


def local_response(node: Node) -> LocalResponse | None:
    """What `node` (the last call of the pattern) computes, or None where that is no local response normalization."""
    for x, divisor, sign in _quotients(node):
        if op_name(divisor) != "pow" or divisor.meta["val"].shape[1:] != x.meta["val"].shape[1:]:
            continue
        power = bound_args(divisor)
        beta, base = power["exponent"], power["self"]
        if not isinstance(beta, (int, float)) or sign * beta <= 0 or not isinstance(base, Node):
            continue
        base, k = _operand(base, "add", 0.0)
        average, alpha = _operand(base, "mul", 1.0)
        window = _window(average, x)
        if window is not None:
            size, region = window
            return LocalResponse(x, size, alpha, abs(float(beta)), k, region)
    return None


def _quotients(node: Node) -> Iterator[tuple[Node, Node, int]]:
    """(x, divisor, sign of its exponent) for every way to read `node` as a quotient of two nodes."""
    name = op_name(node)
    if name not in ("div", "mul"):
        return
    args = bound_args(node)
    a, b = args["self"], args["other"]
    if isinstance(a, Node) and isinstance(b, Node) and args.get("rounding_mode") is None:
        if name == "div":
            yield a, b, 1
        else:
            yield a, b, -1
            yield b, a, -1


def _operand(node: Node, op: str, neutral: float) -> tuple[Node, float]:
    """The node and the number that `node` adds or multiplies; itself and `neutral` where it does neither."""
    if op_name(node) != op:
        return node, neutral
    args = bound_args(node)
    other = args["other"]
    if not isinstance(args["self"], Node) or not isinstance(other, (int, float)) or args.get("alpha", 1) != 1:
        return node, neutral
    return args["self"], float(other)


def _window(node: Node, x: Node) -> tuple[int, str] | None:
    """(size, region) where `node` is the average of x squared over a centered window, else None."""
    pool = _through(node, _RESHAPES)
    if op_name(pool) not in ("avg_pool1d", "avg_pool2d", "avg_pool3d"):
        return None
    args = bound_args(pool)
    rank = int(op_name(pool)[-2])
    kernel, padding = _tuple(args["kernel_size"], rank), _tuple(args["padding"], rank)
    stride = _tuple(args["stride"] or kernel, rank)
    if set(stride) != {1} or not args["count_include_pad"] or args.get("divisor_override") is not None:
        return None
    source = args["input"] if "input" in args else args["self"]
    before, after = list(padding), list(padding)
    if op_name(source) in ("pad", "constant_pad_nd"):
        outer = _zero_pad(source, rank)
        if outer is None:
            return None
        source = bound_args(source)["self"]
        before = [n + m for n, m in zip(before, outer[0], strict=True)]
        after = [n + m for n, m in zip(after, outer[1], strict=True)]
    if before != after or any(2 * n != size - 1 for n, size in zip(before, kernel, strict=True)):
        return None
    return _region(kernel, tuple(source.meta["val"].shape), x) if _squares(_through(source, _RESHAPES), x) else None


def _region(kernel: tuple[int, ...], pooled: tuple[Any, ...], x: Node) -> tuple[int, str] | None:
    shape = tuple(x.meta["val"].shape)
    if set(kernel[1:]) <= {1} and len(pooled) == len(kernel) + 2 and pooled[1] == 1 and pooled[2] == shape[1]:
        return kernel[0], "across"
    if len(kernel) == 2 and kernel[0] == kernel[1] and len(shape) == 4 and pooled[1:] == shape[1:]:
        return kernel[0], "within"
    return None


def _squares(node: Node, x: Node) -> bool:
    name = op_name(node)
    args = bound_args(node) if name else {}
    if name == "mul":
        return args["self"] is x and args["other"] is x
    return args.get("self") is x and (name == "square" or (name == "pow" and args["exponent"] == 2))


def _zero_pad(node: Node, rank: int) -> tuple[list[int], list[int]] | None:
    """(before, after) on each spatial axis where `node` pads by zeros, else None."""
    args = bound_args(node)
    flat = list(args["pad"])
    if args.get("mode", "constant") != "constant" or args["value"] not in (None, 0) or any(flat[2 * rank :]):
        return None
    flat = (flat + [0] * (2 * rank))[: 2 * rank]
    return flat[::2][::-1], flat[1::2][::-1]


def _through(node: Node, ops: tuple[str, ...]) -> Node:
    while op_name(node) in ops:
        args = bound_args(node)
        inner = args["input"] if "input" in args else args["self"]
        if not isinstance(inner, Node):
            break
        node = inner
    return node


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return found * count if len(found) == 1 else found
