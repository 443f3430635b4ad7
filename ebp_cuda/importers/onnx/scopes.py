"""Module paths of torch in ONNX files: what torch's exporters say of the module that every node was traced in.

The exporter through torch.export writes the paths into each node's metadata; the one through TorchScript makes the
nodes' names of them ("/layer1/layer1.0/conv1/Conv"). They become the layers' names, by the rules of the torch importer:
"layer1.0" stands for what that module returned, a second call of it is "layer1.0#2", and a node in a module of several
is "layer1.0.sum". The file's own names stay as others.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import onnx

from ...graph import Node
from ..naming import free_name

NAMES, OLDER = "pkg.torch.onnx.name_scopes", re.compile(r"/(?:(.+)/)?([A-Za-z]+)(?:_\d+)?")
_LONGEST, _DEEPEST = 10_000, 100
"""Letters, and modules within modules, of an entry that is read."""

Call = tuple[str, int]
"""A module path, and which of its calls."""


@dataclass(frozen=True)
class Scoped:
    """The layers that one ONNX node became, and the modules that it was traced in."""

    nodes: Sequence[Node]
    modules: tuple[str, ...] | None
    """Paths, outermost first; None where the file does not say."""


def modules_of(item: onnx.NodeProto) -> tuple[str, ...] | None:
    """The paths of the modules that a node was traced in, outermost first; None where the file does not say."""
    for entry in item.metadata_props:
        if entry.key == NAMES and isinstance(entry.value, str) and len(entry.value) <= _LONGEST:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return None
            if not isinstance(scopes, list) or len(scopes) > _DEEPEST:
                return None
            if not all(isinstance(scope, str) for scope in scopes):
                return None
            return tuple(scope for scope in scopes[:-1] if scope)  # the last one is the call itself
    if not isinstance(item.name, str):  # protobuf gives bytes where they are no UTF-8
        return None
    match = OLDER.fullmatch(item.name[:_LONGEST])
    if match is None or match[2] != item.op_type:
        return None
    steps = match[1].split("/") if match[1] else []
    return None if len(steps) > _DEEPEST else _joined(steps)


def _joined(steps: Sequence[str]) -> tuple[str, ...]:
    """Paths of the steps in a name: within a container a step repeats the container's own name ("layer1.0")."""
    paths = [*steps[:1]]
    for container, step in pairwise(steps):
        above = paths[-1]
        inside = step.startswith(f"{container}.")
        paths.append(above.removesuffix(container) + step if inside else f"{above}.{step}")
    return tuple(paths)


def name_by_modules(
    items: Sequence[Scoped], outputs: Collection[str], values: Collection[str]
) -> tuple[list[Node], dict[str, tuple[str, ...]]]:
    """The layers under their modules' names, and the value that every call of a module stands for.

    Args:
        items: in the order of the file.
        outputs: values that the network returns.
        values: every value's name: a path that is also the name of another value stays out, and so do layers' names.
    """
    calls = _calls(items)
    returned = _returned(items, calls, outputs)
    public = {call: path if count == 1 else f"{path}#{count}" for call in returned for path, count in [call]}
    names: dict[str, tuple[str, ...]] = {
        public[call]: (value,)
        for call, value in returned.items()
        if public[call] == value or public[call] not in values
    }
    alone = Counter(chain[-1] for chain, item in zip(calls, items, strict=True) if chain for _ in item.nodes)
    parents = {call for chain in calls for call in chain[:-1]}
    taken, nodes = {*values, *names}, []
    for item, chain in zip(items, calls, strict=True):
        for node in item.nodes:
            inner = chain[-1] if chain else None
            name = node.name
            if inner is not None and public[inner] in names:
                whole = inner not in parents and alone[inner] == 1
                name = public[inner] if whole else free_name(f"{public[inner]}.{node.op}", taken)
            nodes.append(replace(node, name=name) if name != node.name else node)
    return nodes, names


def _calls(items: Sequence[Scoped]) -> list[tuple[Call, ...]]:
    """The module calls around every node: a module is left with the first node outside of it."""
    count: Counter[str] = Counter()
    inside: tuple[Call, ...] = ()
    found = []
    for item in items:
        if item.modules is not None:
            still, chain = dict(inside), []
            for path in dict.fromkeys(item.modules):
                if path not in still:
                    count[path] += 1
                    still[path] = count[path]
                chain.append((path, still[path]))
            inside = tuple(chain)
        found.append(inside if item.modules is not None else ())
    return found


def _returned(
    items: Sequence[Scoped], calls: Sequence[tuple[Call, ...]], outputs: Collection[str]
) -> Mapping[Call, str]:
    """By call: the last value made in it that something outside reads, or the last one of all."""
    around = {
        value: chain for item, chain in zip(items, calls, strict=True) for node in item.nodes for value in node.outputs
    }
    last: dict[Call, str] = {call: value for value, chain in around.items() for call in chain}
    read: dict[Call, str] = {}
    outside: dict[str, set[Call]] = {value: set(around[value]) for value in outputs if value in around}
    for item, chain in zip(items, calls, strict=True):
        for node in item.nodes:
            for value in node.inputs:
                if value in around:
                    outside.setdefault(value, set()).update(set(around[value]) - set(chain))
    for value in around:
        read |= dict.fromkeys(outside.get(value, ()), value)
    return {**last, **read}
