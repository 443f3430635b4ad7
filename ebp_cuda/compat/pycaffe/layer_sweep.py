"""One layer's way down, with what its last forward left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...engine.plan import Plan
from ...rules import Rule, Step
from ...rules.deferred import add
from ...rules.relevance import Relevance
from .network import Layer

Versions = tuple[tuple[int, int], ...]
"""Where each parameter of a layer lies and how often it may have been written to."""

UNTOUCHED = object()
"""The content of a bottom whose diff the layer does not write."""


@dataclass
class State:
    """What a layer's last forward saw and left."""

    values: dict[str, torch.Tensor]
    """The bottoms, the tops, and what lies between the layer's nodes."""
    saved: dict[int, dict[str, Any]]
    """By node: winner codes; normalisers, until the parameters change."""
    versions: Versions = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class LayerSweep:
    """One layer's way down: the engine's sweep over the few nodes of a layer."""

    def __init__(
        self, plan: Plan, layer: Layer, state: State, non_negative: frozenset[str], rules: Sequence[Rule], is_node: bool
    ) -> None:
        self.plan, self.layer, self.state = plan, layer, state
        self.non_negative, self.rules, self.is_node = non_negative, rules, is_node

    def run(self, above: Sequence[Relevance | None]) -> list[Any]:
        """The content for the diff of each bottom. Under no_grad or not: nothing here requires a gradient."""
        if self.is_node:
            below = self._down(self.layer.nodes[0], self.rules[0], above)
            return [UNTOUCHED if rel is None else rel for rel in below]
        pending: dict[str, list[Relevance]] = {}
        for value, rel in zip(self.layer.outputs, above, strict=True):
            if rel is not None:
                pending[value] = [rel]
        for index, rule in zip(reversed(self.layer.nodes), self.rules, strict=True):
            node = self.plan.graph.nodes[index]
            tops = [add(pending.pop(value)) if value in pending else None for value in node.outputs]
            if any(tops):
                for value, rel in zip(node.inputs, self._down(index, rule, tops), strict=True):
                    if rel is not None:
                        pending.setdefault(value, []).append(rel)
        return [self._of_bottom(value, pending) for value in self.layer.inputs]

    def _of_bottom(self, value: str, pending: dict[str, list[Relevance]]) -> Any:
        parts = pending.get(value, [])
        if self.layer.inputs.count(value) > 1 and len(parts) > 1:
            return parts.pop(0)  # a layer that reads one value twice answers once for each
        return add(parts) if parts else UNTOUCHED

    def _down(self, index: int, rule: Rule, tops: Sequence[Relevance | None]) -> Sequence[Relevance | None]:
        node, values = self.plan.graph.nodes[index], self.state.values
        inputs = [values[value] for value in node.inputs]
        step = Step(
            node=node,
            inputs=inputs if "x" in rule.needs else (),
            outputs=[values[value] for value in node.outputs] if "y" in rule.needs else (),
            saved=self.state.saved[index],
            params=self.plan.params(index),
            packed=self.plan.packer(index),
            non_negative=[value in self.non_negative for value in node.inputs],
            shapes=[x.shape for x in inputs],
        )
        return rule.down(step, tops)
