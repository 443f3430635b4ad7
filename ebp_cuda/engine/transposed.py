"""The sweep taken upwards: what every class leaves at one place of the map, by one pass from the place to the classes.

A sweep is linear in its seed: all rules are linear in relevance, since no normalizer depends on it, and so is the
contrast, a difference of two sweeps. So the relevance that class k leaves at a place is <w, A e_k> with the weights w
of the place and the sweep A, and that is component k of A^T w: one transposed sweep in place of K sweeps.

What a rule does upwards needs no second formula. A^T w is the derivative of <w, A s> by the seed s, and autograd finds
it by the adjoints of the few functions that a rule is made of, which stand beside these (`ops.adjoint`): of a share
p_below = x * L+^T (p / z) it is u = (L+ (x * u_below)) / z, the mean of what lies below, by shares; of a route it is u
at the winner; of a pass u itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import NumericError, ShapeError
from ..questions.question import Question
from ..targets import Choice, class_share
from .condition import warn_where_gained
from .passes import UNOBSERVED, Observer
from .run import Walk, check_top, images_of
from .status import Status, status_of


@dataclass(frozen=True)
class Transposed:
    """What one transposed sweep measured of N images."""

    shares: torch.Tensor
    """[N, classes]: the relevance that probability 1 on a class leaves at the place."""
    scores: torch.Tensor
    """float32 [N, classes]."""
    status: torch.Tensor
    """See status.py."""


def transposed(
    walk: Walk,
    inputs: Mapping[str, torch.Tensor],
    weights_on: Callable[[Sequence[int]], torch.Tensor],
    name: str,
    observer: Observer = UNOBSERVED,
) -> Transposed:
    """One forward pass, one column down, and the way back up.

    inputs: by name, [N, ...]. weights_on: from the plane of the walk's one value, such as (h, w), to the weight of each
    of its positions, [h, w] or [N, h, w]. name: what the caller calls that value. Raises ShapeError where it has no
    plane, UnsupportedError that names the layer where a rule computes by functions that autograd cannot follow.
    """
    plan, top, (value,) = walk.plan, walk.top, walk.values
    placed = {input_: _own(plan.place(x)) for input_, x in inputs.items()}
    with torch.inference_mode(False):
        trace = walk.forward(placed, observer=observer)
        output = trace.values[top]
        check_top(output, top, images_of(inputs))
        images, _, *plane = trace.shapes[value]
        if not plane:
            raise ShapeError(f"layer '{name}' has no plane with places (its shape is {list(trace.shapes[value])})")
        weights = weights_on(plane)
        if weights.shape not in (torch.Size(plane), torch.Size((images, *plane))):
            wanted = f"{plane}, or {[images, *plane]} with one place for each image"
            raise ShapeError(f"place has shape {list(weights.shape)}; wanted {wanted}")
        # any seed does, for the sweep is linear in it; of this one no element is 0, so no rule finds nothing to do
        seed = torch.ones_like(output).requires_grad_()
        with torch.enable_grad():
            p = walk.sweep(trace, seed, observer).relevance[value].p()
            at_place = (p.sum(1) * _own(plan.place(weights))).sum()
        (up,) = torch.autograd.grad(at_place, seed)
    scores = Question(Choice("all", 0)).scores(output)
    shares = (up * class_share(output)).reshape(*scores.shape, -1).sum(2)
    status = status_of(tuple(placed.values()), None, [shares.abs()])
    return Transposed(shares, scores.float(), status)


def judge(walk: Walk, status: Status, name: str) -> None:
    """Raises what is wrong with a call of `transposed`, and warns where a share is more than 1."""
    status.check_inputs(walk.plan.graph)
    if not status.finite:
        raise NumericError(f"what the classes leave at layer '{name}' is not finite")
    warn_where_gained(status.largest_mass, walk.plan.rules, name)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that autograd may keep: a copy of one that the caller made under torch.inference_mode."""
    return tensor.clone() if tensor.is_inference() else tensor
