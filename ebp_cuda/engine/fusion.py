"""Which convolutions run forward together with the ReLU behind them and the normalizer that their rule divides by.

Where the backend gains by that (`LinearMap.why_no_normalizer`) and the layer shares by its positive weights alone. The
ReLU joins where nobody else reads the convolution's output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..graph import Graph, Node
from ..linear import LinearMap
from ..rules import Forward, Rule, Saved
from ..rules.contraction import forward_with_normalizer, share_conserving, share_excitation
from ..vocabulary import operations

KEEP_THE_FACTOR = operations("conv", "max_pool", "avg_pool", "concat", "flatten", "reshape", "identity")
"""Layers whose rules hand down a relevance `s * x` with their own input as the factor x."""


@dataclass(frozen=True)
class Fusion:
    """Finds them in one plan."""

    graph: Graph
    non_negative: frozenset[str]
    """Values that cannot be below zero."""
    rule: Callable[[Node], Rule | None]
    linear: Callable[[int], LinearMap | None]
    """By index of a node: its linear map, if it has one."""

    def forwards(
        self,
        needed: Sequence[int],
        keep: Collection[str],
        visited: Collection[int],
        divided: Collection[int] | None = None,
    ) -> dict[int, Forward]:
        """By node, what runs in place of its forward.

        Args:
            needed: nodes of the forward pass.
            keep: values that the pass must leave as they are.
            visited: nodes that a sweep will visit.
            divided: see `Plan.stages`.
        """
        together: dict[int, Forward] = {}
        nodes = self.graph.nodes
        readers = Counter(value for index in needed for value in nodes[index].inputs)
        reader = {value: index for index in needed for value in nodes[index].inputs[:1]}
        for index in needed:
            value = nodes[index].outputs[0]
            if index not in (visited if divided is None else divided) or not self._gains(index):
                continue
            after = reader.get(value) if readers[value] == 1 and value not in keep else None
            if after is not None and after in visited and nodes[after].op == "relu":
                as_gate = self._divides_by_gate(index, nodes[after].outputs[0], visited)
                together[index] = partial(forward_with_normalizer, relu=True, as_gate=as_gate)
                together[after] = already_rectified
            elif divided is not None:
                together[index] = partial(forward_with_normalizer, relu=False, as_gate=False)
        return together

    def _gains(self, index: int) -> bool:
        """Whether the layer's rule divides by L+ x alone, and the backend computes that beside the output for less."""
        node, linear = self.graph.nodes[index], self.linear(index)
        rule = self.rule(node)
        if linear is None or rule is None:
            return False
        signless = rule.down is share_conserving and node.inputs[0] in self.non_negative
        return (rule.down is share_excitation or signless) and not linear.why_no_normalizer

    def _divides_by_gate(self, index: int, value: str, visited: Collection[int]) -> bool:
        """Whether all that comes down to the ReLU's output `value` is a multiple of it, so that y / z is enough."""
        rule = self.rule(self.graph.nodes[index])
        if rule is None or rule.down is not share_excitation:
            return False
        readers = [self.graph.nodes[other] for other in visited if value in self.graph.nodes[other].inputs]
        return bool(readers) and all(node.op in KEEP_THE_FACTOR for node in readers)


def already_rectified(
    node: Node, params: Mapping[str, torch.Tensor], xs: Sequence[torch.Tensor], saved: Saved
) -> Sequence[torch.Tensor]:
    """The forward of a ReLU that the convolution before it has computed."""
    return xs
