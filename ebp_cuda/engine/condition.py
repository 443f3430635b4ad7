"""How much of a contrast is left at the layer of a map, and which precision can carry so little.

A contrastive map is a small difference of two large ones, and what rounding does to those it does to the difference,
divided by the mass that is left. Whatever the network, the relative L1 error of a map stayed below `ERROR / mass_left`
or the error of maps that lose nothing, whichever is larger (docs/precision.md says where that was measured).
"""

from __future__ import annotations

import inspect
import warnings

import torch

from ..rules.relevance import Relevance

ERROR = {"fp32": 2.5e-7, "tf32": 2.5e-6, "bf16": 3e-5}
"""By precision: the error of a map, times the mass that was left, at most."""
ALLOWED = 0.02
"""Relative L1 error from which a map is worth a warning."""


class PrecisionWarning(UserWarning):
    """The mass that a contrast left is too small for the precision it was computed in."""


class ShareWarning(UserWarning):
    """More relevance arrived at a layer than was put in, which shares of a probability cannot."""


EXCESS = 1.05
"""Mass left above which a share has grown by more than rounding."""


def mass_left(p: torch.Tensor, start: Relevance) -> torch.Tensor:
    """sum |p| of every row over that of `start`, where the sweep began; [N*K, ...] -> [N*K], 0 where nothing began."""
    began = mass(start.p())
    return mass(p) / began.clamp(min=torch.finfo(began.dtype).tiny)


def warn_where_lost(left: torch.Tensor, precision: str, layer: str) -> bool:
    """Warns where the precision cannot carry what is left (a tensor of any shape), and says whether it did."""
    least = float(torch.where(left > 0, left, 1.0).min())
    error = ERROR[precision] / least
    if error <= ALLOWED:
        return False
    more = "fp32" if precision != "fp32" and ERROR["fp32"] / least <= ALLOWED else "fp64"
    warnings.warn(
        f"layer '{layer}': only {least:.1e} of the mass at the contrast layer is left, and dtype='{precision}' may get "
        f"that wrong by {min(error, 1):.0%} (docs/precision.md); dtype='{more}' carries it",
        PrecisionWarning,
        stacklevel=frames_of_ours(),
    )
    return True


def warn_where_gained(largest: float, rules: str, layer: str) -> bool:
    """Warns where more mass arrived at the layer than was put in, and says whether it did."""
    if largest <= EXCESS:
        return False
    better = "; rules='conserving' keeps them below 1" if rules != "conserving" else ""
    warnings.warn(
        f"layer '{layer}': shares of the probability sum up to {largest:.3g} there, where 1 was put in: signed "
        f"activations make rules='{rules}' ill-conditioned{better} (docs/rules.md)",
        ShareWarning,
        stacklevel=frames_of_ours(),
    )
    return True


_US = __name__.split(".")[0]


def frames_of_ours() -> int:
    """How far up the stack, from the caller of this, the first frame of somebody else's code is."""
    level, frame = 1, inspect.currentframe()
    frame = frame.f_back if frame else None
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == _US:
        level, frame = level + 1, frame.f_back
    return level


def mass(p: torch.Tensor) -> torch.Tensor:
    """sum |p| of every row, [N*K, ...] -> [N*K]."""
    return torch.linalg.vector_norm(p, 1, dim=tuple(range(1, p.dim())))
