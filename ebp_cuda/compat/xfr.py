"""Weighted subtree Excitation Backprop, as xfr has it for pairs of faces.

    result = weighted_subtree(eb, x, similarity_to=mate, other=nonmate)

Source: J. R. Williford, B. B. May, J. Byrne, "Explainable Face Recognition", ECCV 2020, and the authors' published
code. A triplet (probe, mate, nonmate) is explained by single units: those whose excitation makes the probe more like
the mate and less like the nonmate. Of each layer the best such unit starts a sweep of its own, and the maps of the best
layers are added. The contrasts "versus" and "truncated" of the same paper are keywords of `ExcitationBackprop`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..api import ExcitationBackprop
from ..engine.passes import Edges, RuleOf, Sweep, Trace
from ..errors import InputError, UnsupportedError
from ..graph import Node
from ..net import Input
from ..ops.modes import exact
from ..questions.asking import Asked
from ..rules import OPERATIONS, Rule
from ..rules.relevance import Relevance, add
from ..targets import Target
from .pycaffe.gradients import GRADIENT, backward_rule

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Subtrees", "weighted_subtree"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Subtrees:
    """The map of each image, and the units that it was added up from."""

    maps: Tensor
    """[N, h, w], not below 0, each summing to 1."""
    layers: list[list[str]]
    """For each image the layers whose unit started a sweep, the heaviest last."""
    weights: list[list[float]]
    """For each of them minus the derivative of the similarity to the nonmate by the unit."""


def weighted_subtree(
    eb: ExcitationBackprop,
    x: Input,
    target: Target = "top1",
    *,
    subtrees: int = 5,
    layers: Sequence[str] | None = None,
    merge: str = "sum",
    **asked: Unpack[Asked],
) -> Subtrees:
    """Maps at the one layer of `eb` of what sets a class or an embedding apart from another one.

    Args:
        eb: a method with one layer; its contrast layer plays no part.
        x: as for `ExcitationBackprop.attribute`, one column for each image.
        target: a class for each image; or similarity_to, an embedding.
        subtrees: how many layers' maps are added, at most.
        layers: where single units are looked for; None: the inputs of all layers with weights above the map's layer.
        merge: "sum" of the weighted maps, or their "max".
        **asked: other (the nonmate), and similarity_to where no class is meant; see `Asked`.

    Raises:
        InputError: nothing to set apart, several layers or columns, or no unit that tells the two apart.
        UnsupportedError: a layer without a derivative or a rule.
    """
    if len(eb.places.layers if eb.net is not None else ()) != 1:
        raise InputError(f"weighted_subtree: got {len(eb.places.layers)} layers; wanted a method with one")
    if merge not in ("sum", "max") or subtrees < 1:
        raise InputError(f"merge={merge!r}, subtrees={subtrees}: wanted 'sum' or 'max', and at least one")
    asked["contrast"] = "versus"
    request = eb.request(x, target, "maps", **asked)
    images = next(iter(request.inputs.values())).shape[0]
    parts = []
    for image in range(images):
        some = slice(image, image + 1)
        inputs = {name: tensor[some] for name, tensor in request.inputs.items()}
        parts.append(_Probe(eb, inputs, request.question.of_images(some), layers).map(subtrees, merge))
    return Subtrees(torch.cat([part[0] for part in parts]), [part[1] for part in parts], [part[2] for part in parts])


class _Probe:
    """One image with its activations, its gradients and its relevance at every candidate layer."""

    def __init__(
        self, eb: ExcitationBackprop, inputs: Mapping[str, Tensor], question: Any, layers: Sequence[str] | None
    ) -> None:
        walk = eb.calls.walk
        self.plan, self.value, self.layer = walk.plan, walk.values[0], eb.layer
        graph, self.nodes = self.plan.graph, walk.plan.route([walk.top], walk.values).nodes
        on_the_way = {value for i in self.nodes for value in (*graph.nodes[i].inputs, *graph.nodes[i].outputs)}
        self.trace: Trace = walk.forward(inputs, on_the_way)
        top = self.trace.values[walk.top]
        answered, targets = question.answered(question.scores(top))
        if targets.shape[1] != 1 or answered.other is None or answered.other.choice.count != 1:
            raise InputError(
                "weighted_subtree: wanted one class or embedding for each image, and one to set it against"
            )
        mate, nonmate = (_slope(part, top) for part in (answered, answered.other))
        slopes = self._swept({walk.top: torch.cat([mate, nonmate])}, self._derivative)
        excited = self._swept({walk.top: answered.own_seeds(top)}, self.plan.rule)
        self.names = {graph.resolve(name)[0]: name for name in layers} if layers else dict(self._with_weights())
        known = [value for value in self.names if value in slopes and value in excited and value != self.value]
        if not known:
            raise InputError(f"layers: none lies between the top and '{self.layer}'")
        self.best = {value: _best_unit(slopes[value], excited[value]) for value in known}

    def _with_weights(self) -> Iterator[tuple[str, str]]:
        for index in self.nodes:
            node = self.plan.graph.nodes[index]
            if OPERATIONS[node.op].is_contraction:
                yield node.inputs[0], node.inputs[0]

    def _derivative(self, node: Node) -> Rule:
        rule = backward_rule(node, "gradient")
        derives = node.op in GRADIENT or node.op == "identity" or (rule and rule.kind in ("gradient", "move", "route"))
        if rule is None or not derives:
            raise UnsupportedError(
                f"{self.plan.graph.origin}: layer '{node.name}' ({node.source or node.op}): weighted_subtree needs its "
                "derivative, and there is none"
            )
        return rule

    def _swept(self, seeds: Mapping[str, Tensor], rule_of: RuleOf) -> dict[str, Tensor]:
        """What arrives at every value below the seeds, by one sweep."""
        edges: Edges = {}
        plan = self.plan
        with exact(plan.device):
            starts = {value: Relevance(seed) for value, seed in seeds.items()}
            Sweep(plan, self.trace, rule_of, plan.non_negative).run(self.nodes, starts, (), edges)
            arrived: dict[str, list[Relevance]] = {}
            for (index, place), relevance in edges.items():
                arrived.setdefault(plan.graph.nodes[index].inputs[place], []).append(relevance)
            return {value: add(parts).p() for value, parts in arrived.items()}

    def map(self, subtrees: int, merge: str) -> tuple[Tensor, list[str], list[float]]:
        """The map [1, h, w], the layers and their weights."""
        chosen: list[tuple[str, float, Tensor]] = []
        for value, (weight, seed) in sorted(self.best.items(), key=lambda item: -item[1][0]):
            map_ = self._swept({value: seed}, self.plan.rule).get(self.value)
            if weight > 0 and map_ is not None and map_.dim() > 2 and float(map_.sum(1).max()) > 0:
                chosen.insert(0, (value, weight, map_.sum(1)))
            if len(chosen) == subtrees:
                break
        if not chosen:
            raise InputError(f"weighted_subtree: no unit above layer '{self.layer}' tells the two apart there")
        weights = chosen[0][2].new_tensor([weight for _, weight, _ in chosen])
        spread = weights - weights.min()
        spread = spread / spread.max() if bool(spread.max() > 0) else torch.ones_like(spread)
        scaled = torch.stack([part * (map_ / map_.max()) for part, (_, _, map_) in zip(spread, chosen, strict=True)])
        total = scaled.sum(0) if merge == "sum" else scaled.amax(0)
        return total / total.sum(), [self.names[value] for value, _, _ in chosen], weights.tolist()


def _slope(question: Any, top: Tensor) -> Tensor:
    """The derivative of the class's score or of the similarity by the top, [1, ...]."""
    if question.embedding is not None:
        embedding = question.embedding.to(top.device, top.dtype)[:, 0]
        return embedding.reshape(*embedding.shape, *[1] * (top.dim() - 2)).expand_as(top)
    return question.own_seeds(top)


def _best_unit(slopes: Tensor, excited: Tensor) -> tuple[float, Tensor]:
    """The weight of a layer's best unit, and its relevance alone in a layer of zeros.

    The best unit has the largest -d nonmate among those whose d mate is not below 0. slopes: of mate and nonmate,
    [2, ...]. excited: the mate's relevance, [1, ...].
    """
    mate, nonmate = slopes.flatten(1)
    gain = (mate >= 0) * -nonmate
    index = int(gain.argmax())
    alone = excited.new_zeros(excited.numel())
    alone[index] = excited.flatten()[index]
    return float(gain[index]), alone.reshape(excited.shape)
