"""Functions that are linear in relevance, and what autograd makes of them: their adjoint, which is stated beside each.

A sweep is linear in its seed. Its transpose takes weights of the units below up to the seeds, and is the derivative of
the sweep by the seed: so every rule is written once, downwards, and autograd follows it where the seed asks for that
(engine/transposed.py). Ordinary sweeps carry no such seed, and pay one look at a flag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Map = Callable[[torch.Tensor], torch.Tensor]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: torch.Tensor, down: Map, up: Map) -> torch.Tensor:
        ctx.up = up
        return down(p.detach())

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.up(u), None, None


def is_followed(p: torch.Tensor) -> bool:
    """Whether autograd records what is computed from p."""
    return getattr(p, "requires_grad", False) and torch.is_grad_enabled()  # what is no tensor, the op refuses


def linear(p: torch.Tensor, down: Map, up: Map) -> torch.Tensor:
    """down(p); where autograd follows p, it takes `up` for the adjoint of `down`.

    up: from weights u of the elements of down(p) to those of the elements of p: <u, down(p)> = <up(u), p>.
    """
    return _Linear.apply(p, down, up) if is_followed(p) else down(p)
