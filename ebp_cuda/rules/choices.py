"""Comparisons, and choices between values by them: relevance goes to the value that was chosen, none to the mask."""

from __future__ import annotations

import torch

from ..graph import Node
from .registry import Params, Relevances, Step, Tensors, operation, register_rule
from .relevance import Relevance, only
from .saved import Saved

_COMPARED = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}


@operation("compare", always_non_negative=True)
def compare(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """1 where the comparison with a second input or a constant holds, 0 elsewhere."""
    other = xs[1] if len(xs) > 1 else params["bound"]
    return [_COMPARED[node.attrs["kind"]](xs[0], other).to(xs[0].dtype)]


@register_rule("compare", "route", needs="")
def nothing_below_a_mask(step: Step, above: Relevances) -> list[Relevance | None]:
    """A mask has no part in a sum, so nothing goes to what was compared."""
    return [None] * len(step.shapes)


def _operands(params: Params, xs: Tensors) -> list[torch.Tensor]:
    """Mask, first and second choice: constants by name, inputs for the others in order."""
    inputs = iter(xs)
    return [params[name] if name in params else next(inputs) for name in ("mask", "first", "second")]


@operation("where")
def where(node: Node, params: Params, xs: Tensors, saved: Saved) -> Tensors:
    """The first choice where the mask is not 0, the second elsewhere."""
    mask, first, second = _operands(params, xs)
    return [torch.where(mask != 0, first, second)]


@register_rule("where", "route", needs="x")
def route_to_choice(step: Step, above: Relevances) -> list[Relevance | None]:
    """p of an element to the value that it was taken from; to nobody where that is a constant."""
    rel = only(above)
    inputs = iter(step.inputs)
    mask = step.params["mask"] if "mask" in step.params else next(inputs)
    below: list[Relevance | None] = [] if "mask" in step.params else [None]
    for name, chosen in (("first", mask != 0), ("second", mask == 0)):
        if name not in step.params:
            x = next(inputs)
            below.append(rel.times(chosen.to(x.dtype).expand(x.shape).contiguous()))
    return below
