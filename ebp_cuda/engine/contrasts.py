"""Contrasts that are no difference of two sweeps, and so not linear in the seed: what is taken where a map is read.

Source: J. R. Williford, B. B. May, J. Byrne, "Explainable Face Recognition", ECCV 2020, section 3, and the authors'
published code.
"""

from __future__ import annotations

import torch

from .. import ops


def truncated(excited: torch.Tensor, other: torch.Tensor, percentile: float) -> torch.Tensor:
    """Truncated contrastive Excitation Backprop: max(m * (P - Q), 0) with P and Q scaled to sum to 1 over the layer.

    m is 1 at the units that hold P's largest relevance, all of it but `percentile` percent, and 0 elsewhere: sorted
    from the smallest on, a unit counts from where the running sum reaches that part of the whole.

    Args:
        excited: P [N, K, ...], of the classes.
        other: Q [N, K, ...], of what they are set against.
        percentile: 0 to 100.

    Returns:
        [N, K, ...], not below 0.
    """
    p, q = _to_one(excited), _to_one(other)
    ranked, order = p.sort(dim=2, stable=True)
    reached = ranked.cumsum(2)
    kept = (reached >= percentile / 100 * reached[..., -1:]).to(p.dtype)
    m = torch.zeros_like(p).scatter(2, order, kept)
    return (m * (p - q)).clamp(min=0).reshape(excited.shape)


def _to_one(p: torch.Tensor) -> torch.Tensor:
    """Relevance [N, K, ...] as [N, K, units] that sums to 1; 0 where it sums to 0."""
    flat = p.flatten(2)
    total = flat.sum(2, keepdim=True).expand_as(flat)
    return ops.divide_or_zero(flat.flatten(0, 1), total.flatten(0, 1).contiguous()).reshape(flat.shape)
