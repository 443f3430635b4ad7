"""The engine: what stays constant over images (plan), the two passes, recorded runs, memory by a budget."""

from __future__ import annotations

from .passes import Trace, contrastive_sweep, forward, sweep

__all__ = ["Trace", "contrastive_sweep", "forward", "sweep"]
