"""Adaptive pooling: output i of m looks at the inputs from floor(i * n / m) to ceil((i + 1) * n / m) of an axis of n.

The windows differ in size. Repeating their rows and columns until all are of one size makes it a plain pooling of the
repeated input, average or maximum alike, and that is how it runs, forwards and down; an input collects what its copies
got. (A window of 2 beside one of 3: every row of the first is taken three times, of the second twice.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch

from ..errors import ShapeError
from ..graph import Node
from . import pooling
from .copies import collected, picked
from .registry import OPERATIONS, RULE_SETS, Down, Forward, Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance
from .saved import Saved


def windows(size: int, outputs: int) -> list[range]:
    """The inputs along an axis of that size that each of its outputs sees."""
    return [range(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]


@lru_cache(maxsize=256)
def _repeats(size: int, outputs: int) -> tuple[tuple[int, ...], int]:
    """The rows to take, and how many of them make a window."""
    seen = windows(size, outputs)
    length = math.lcm(*(len(window) for window in seen))
    return tuple(row for window in seen for row in window for _ in range(length // len(window))), length


def _sizes(node: Node, x: torch.Tensor) -> list[tuple[int, int, int]]:
    """(axis, size, outputs) of every spatial axis."""
    wanted = node.attrs["size"]
    if x.dim() != len(wanted) + 2:
        raise ShapeError(f"layer '{node.name}': input has shape {list(x.shape)}, wanted {len(wanted)} spatial axes")
    pairs = enumerate(zip(x.shape[2:], wanted, strict=True), start=2)
    return [(axis, n, n if m is None else int(m)) for axis, (n, m) in pairs]


def _expanded(node: Node, x: torch.Tensor) -> tuple[torch.Tensor, Node]:
    """The input with repeated rows, and the plain pooling of that."""
    kernel = []
    for axis, n, outputs in _sizes(node, x):
        rows, length = _repeats(n, outputs)
        x = picked(x, rows, axis)
        kernel.append(length)
    none, ones = (0,) * len(kernel), (1,) * len(kernel)
    attrs = {"kernel": tuple(kernel), "stride": tuple(kernel), "padding": none, "padding_end": none, "dilation": ones}
    return x, replace(node, op=node.op.removeprefix("adaptive_"), attrs=attrs)


def _collected(node: Node, p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """p of the repeated input as that of the input itself."""
    for axis, n, outputs in _sizes(node, x):
        p = collected(p, _repeats(n, outputs)[0], n, axis)
    return p


def _enter(name: str, plain_forward: Forward, plain_rules: Mapping[str, Down]) -> None:
    @operation(name, keeps_non_negative=True)
    def forward(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
        x, plain = _expanded(node, xs[0])
        return plain_forward(plain, params, [x], saved)

    for rules, plain_down in plain_rules.items():

        def down(step: Step, above: Relevances, plain_down: Down = plain_down) -> list[Relevance | None]:
            x, plain = _expanded(step.node, step.inputs[0])
            (rel,) = plain_down(replace(step, node=plain, inputs=[x], shapes=[x.shape]), above)
            return [None if rel is None else Relevance(_collected(step.node, rel.p(), step.inputs[0]))]

        register_rule(name, OPERATIONS[name.removeprefix("adaptive_")].rules[rules].kind, rule_sets=[rules])(down)


for _name, _forward in {"avg_pool": pooling.avg_pool, "max_pool": pooling.max_pool}.items():
    _enter(f"adaptive_{_name}", _forward, {rules: OPERATIONS[_name].rules[rules].down for rules in RULE_SETS})
