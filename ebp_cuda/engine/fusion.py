"""What a plan computes together: a convolution, its ReLU and its normaliser, from one reading of x.

Only where a faster convolution has nothing to offer for the output alone. On CUDA: 1 x 1 kernels, which read more than
they compute, and strided ones; what is 3 x 3 or larger goes to cuDNN, whose Winograd products need half the arithmetic.
On a CPU: what its matrix tiles take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch

from ..graph import Graph, Node
from ..ops import tiles
from ..rules import Forward, Rule
from ..rules.contraction import forward_with_normalizer, hand_on_forward, share_conserving, share_excitation
from ..vocabulary import operations

_KEEP_THE_FACTOR = operations("conv", "max_pool", "avg_pool", "concat", "flatten", "reshape", "identity")
"""Layers that hand down a relevance whose factor is their input itself."""


_FEW = 8
"""Input channels below which tensor cores and matrix tiles stay empty."""


class Planned(Protocol):
    """What is asked of a plan."""

    graph: Graph
    fused: bool
    non_negative: frozenset[str]

    def rule(self, node: Node) -> Rule | None: ...

    def packer(self, index: int) -> Callable[[str], torch.Tensor]: ...


def fused_forwards(
    plan: Planned,
    needed: Sequence[int],
    keep: Collection[str],
    visited: Collection[int],
    divided: Collection[int] | None = None,
) -> dict[int, Forward]:
    """By node, what runs in place of its forward in a float32 pass over the nodes `needed`.

    divided: see `Plan.stages`.
    """
    together: dict[int, Forward] = {}
    readers = Counter(value for index in needed for value in plan.graph.nodes[index].inputs)
    by_input = {value: index for index in needed for value in plan.graph.nodes[index].inputs[:1]}
    for index in needed:
        value = plan.graph.nodes[index].outputs[0]
        if index not in (visited if divided is None else divided) or not _shares_plainly(plan, index):
            continue
        follower = by_input.get(value) if readers[value] == 1 and value not in keep else None
        if follower is not None and follower in visited and plan.graph.nodes[follower].op == "relu":
            rectified = plan.graph.nodes[follower].outputs[0]
            together[index] = _together(plan, index, _divides_by_gate(plan, index, rectified, visited))
            together[follower] = hand_on_forward
        elif divided is not None:
            together[index] = _beside(plan, index)
    return together


def _shares_plainly(plan: Planned, index: int) -> bool:
    """Whether the layer's normaliser is W+ x, and worth computing beside its output."""
    node, rule = plan.graph.nodes[index], plan.rule(plan.graph.nodes[index])
    if node.op != "conv" or rule is None:
        return False
    weight = node.params["weight"]
    if weight.shape[1] < _FEW:  # images, mostly
        return False
    alone = rule.down is share_excitation or (rule.down is share_conserving and node.inputs[0] in plan.non_negative)
    small, strided = set(weight.shape[2:]) == {1}, max(node.attrs["stride"]) > 1
    worth = (small or strided) if plan.fused else not strided and tiles.filled(*weight.shape[:2])
    return alone and weight.dim() == 4 and worth and node.attrs["groups"] == 1


def _divides_by_gate(plan: Planned, index: int, value: str, visited: Collection[int]) -> bool:
    """Whether all that comes down to the ReLU's output is a multiple of it, so that y / z is all its layer needs."""
    rule = plan.rule(plan.graph.nodes[index])
    if rule is None or rule.down is not share_excitation:
        return False
    readers = [plan.graph.nodes[index] for index in visited if value in plan.graph.nodes[index].inputs]
    return bool(readers) and all(node.op in _KEEP_THE_FACTOR for node in readers)


def _together(plan: Planned, index: int, as_gate: bool) -> Forward:
    packed = plan.packer(index)
    return lambda node, params, xs, saved: forward_with_normalizer(node, params, xs, saved, packed, as_gate)


def _beside(plan: Planned, index: int) -> Forward:
    """The forward with the normaliser beside it, and no ReLU."""
    packed = plan.packer(index)
    return lambda node, params, xs, saved: forward_with_normalizer(node, params, xs, saved, packed, False, relu=False)
