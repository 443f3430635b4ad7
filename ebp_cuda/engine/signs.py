"""What the layers alone say about signs, before any image is seen."""

from __future__ import annotations

from ..graph import Graph
from ..rules import OPERATIONS


def non_negative_values(graph: Graph) -> frozenset[str]:
    """Values that cannot be below zero whatever the input (behind a ReLU, say)."""
    non_negative: set[str] = set()
    for node in graph.nodes:
        entry = OPERATIONS.get(node.op)
        if entry is None:
            continue
        kept = entry.keeps_non_negative and all(value in non_negative for value in node.inputs)
        if node.op == "clip":
            kept = kept or float(node.attrs["min"]) >= 0
        if node.op == "sum" and any(c < 0 for c in node.attrs.get("coefficients") or ()):
            kept = False
        if entry.always_non_negative or kept:
            non_negative.update(node.outputs)
    return frozenset(non_negative)
