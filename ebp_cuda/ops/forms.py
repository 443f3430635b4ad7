"""The forms in which a sweep multiplies by a layer's weights."""

from __future__ import annotations

import torch


def formed(weight: torch.Tensor, form: str) -> torch.Tensor:
    """weight [O, I, ...] as "" (it is), "+": max(W, 0), or "-": max(-W, 0); with "^T" behind that, the way down of a
    convolution of stride 1: input and output channels exchanged and the kernel flipped."""
    sign, flipped = form.removesuffix("^T"), form.endswith("^T")
    if sign:
        weight = weight.clamp(min=0) if sign == "+" else (-weight).clamp_(min=0)
    return weight.transpose(0, 1).flip(tuple(range(2, weight.dim()))) if flipped else weight


def shape_of(weight: torch.Tensor, form: str) -> tuple[int, ...]:
    """The shape of `formed(weight, form)`."""
    above, below, *kernel = weight.shape
    return (below, above, *kernel) if form.endswith("^T") else (above, below, *kernel)
