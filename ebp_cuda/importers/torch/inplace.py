"""In-place calls of an exported program that mean the same as their ordinary namesakes."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

_MAY_RETURN_THEIR_INPUT = ("dropout", "feature_dropout", "alpha_dropout")
"""Composite operations whose schemas do not tell that they alias."""


def reads_as_functional(graph: fx.Graph) -> bool:
    """Whether every in-place call of the graph may be read as if it returned a new tensor.

    That is so where nobody reads the overwritten tensor, or a view of it, afterwards except through what the call
    returned. Otherwise the program has to be decomposed, which takes longer than exporting it did.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    root: dict[fx.Node, fx.Node] = {}
    sharing: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        source = _aliased(node)
        root[node] = root[source] if source is not None else node
        if _writes(node):
            if source is None or op_kind(node) is None:
                return False
            before = sharing[root[node]]
            if any(order[user] > order[node] for other in before for user in other.users):
                return False
        sharing[root[node]].append(node)
    return True


def op_kind(node: fx.Node) -> torch._ops.OpOverload | None:
    """The operator that a node calls; None where it calls none."""
    return node.target if isinstance(node.target, torch._ops.OpOverload) else None


def _writes(node: fx.Node) -> bool:
    op = op_kind(node)
    return op is not None and op._schema.is_mutable


def _aliased(node: fx.Node) -> fx.Node | None:
    """The node whose memory the outputs of `node` may show, as far as there is one."""
    op = op_kind(node)
    if op is None:
        given = node.args[0] if node.op == "call_function" and node.args else None
        return given if isinstance(given, fx.Node) else None  # getitem
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    returns = op._schema.returns
    shows = any(value.alias_info is not None for value in returns)
    return node.args[0] if shows or op._schema.name.split("::")[-1] in _MAY_RETURN_THEIR_INPUT else None
