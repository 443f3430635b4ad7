"""In-place calls of an exported program: those that mean the same as their ordinary namesakes, and those that write to
the module's own weights, which no network can stand for."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ...errors import UnsupportedError
from .messages import line_of_call

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


def refuse_written_state(program: ExportedProgram, origin: str) -> None:
    """Refuses a forward that writes to a parameter, buffer or constant that its outputs depend on.

    Such a module gives something else at every call; a counter that no output reads is none of that.

    Raises:
        UnsupportedError: names the tensor and the line that writes to it.
    """
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if spec.kind != InputKind.USER_INPUT}
    state = {node: specs[node.name].target for node in program.graph.nodes if node.name in specs}
    writes = _written(program.graph_module, {node: str(target) for node, target in state.items()})
    if not writes:
        return
    live = _ancestors(program.graph.find_nodes(op="output"))
    read = {str(state[node]) for node in live if node in state}
    for target, node in writes.items():
        if target in read:
            line = line_of_call(node)
            where = f" ({line})" if line else ""
            raise UnsupportedError(
                f"{origin}: the forward writes to its own '{target}' by {node.target}{where}, so that every call gives "
                "something else; move the write out of forward"
            )


def _written(module: torch.nn.Module, root: dict[fx.Node, str]) -> dict[str, fx.Node]:
    """State that calls write to -> the call; `root` is the state that nodes are, or show a part of, and grows.

    Calls of subgraphs (torch.no_grad in a forward) hand their operands on by position.
    """
    writes: dict[str, fx.Node] = {}
    for node in module.graph.nodes:  # type: ignore[union-attr]
        subgraph = next((arg for arg in node.all_input_nodes if arg.op == "get_attr"), None)
        if subgraph is not None and isinstance(inner := getattr(module, str(subgraph.target), None), fx.GraphModule):
            operands = [arg for arg in node.all_input_nodes if arg is not subgraph]
            inside = zip(inner.graph.find_nodes(op="placeholder"), operands, strict=False)
            writes.update(_written(inner, {own: root[given] for own, given in inside if given in root}))
            continue
        source = _aliased(node)
        if source in root:
            root[node] = root[source]
            if _writes(node):
                writes.setdefault(root[source], node)
    return writes


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    reached: set[fx.Node] = set()
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if node not in reached:
            reached.add(node)
            queue.extend(node.all_input_nodes)
    return reached
