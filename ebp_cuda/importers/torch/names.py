"""Names for a graph made from a torch module: its nodes and values by module path, its modules by their outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import fx

from ...graph import Graph, Node
from ..naming import free_name

Calls: TypeAlias = "dict[tuple[str, ...], str]"


@dataclass(frozen=True)
class Converted:
    """One ATen call of the exported program and the nodes it became, with provisional names and values."""

    source: fx.Node
    nodes: Sequence[Node]


def module_calls(node: fx.Node) -> Calls:
    """The module calls that an ATen call happened in, outermost first: a key that is unique per call -> module path."""
    found: Calls = {}
    key: tuple[str, ...] = ()
    for name, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
        if path != kind:  # torch marks calls of its own making by an entry whose parts are all the same
            key = (*key, name)
            found[key] = path
    return found


def finish(
    converted: Sequence[Converted],
    values: Mapping[fx.Node, str],
    live: Collection[fx.Node],
    inputs: Mapping[str, tuple[int | None, ...]],
    outputs: Sequence[str],
    origin: str,
) -> Graph:
    """The graph under its final names.

    values: what each activation of the program is called so far. live: calls that the outputs depend on.
    """
    calls = {node: module_calls(node) for node in values if node in live}
    public = _public_names(calls.values())
    taken = {*inputs, *public.values()}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for item, (prefix, whole) in zip(converted, _prefixes(converted, calls, public), strict=True):
        for node in item.nodes:
            whole = whole and prefix not in inputs
            name = prefix if whole else free_name(f"{prefix}.{node.op}" if prefix else node.op, taken)
            writes = (name,) if len(node.outputs) == 1 else tuple(f"{name}:{i}" for i in range(len(node.outputs)))
            renamed.update(zip(node.outputs, writes, strict=True))
            reads = tuple(renamed.get(value, value) for value in node.inputs)
            nodes.append(replace(node, name=name, inputs=reads, outputs=writes))
    returned = _returned_values(values, calls, live)
    names: dict[str, tuple[str, ...]] = {}
    for key, name in public.items():
        if name:
            names[name] = (renamed.get(returned[key], returned[key]),)
    tops = tuple(dict.fromkeys(renamed.get(value, value) for value in outputs))
    return Graph(nodes, dict(inputs), tops, names, {"origin": origin})


def _public_names(calls: Iterable[Calls]) -> dict[tuple[str, ...], str]:
    """By module call: "path", "path#2" for the module's second call, and so on; "" for the module itself."""
    public: dict[tuple[str, ...], str] = {}
    count: Counter[str] = Counter()
    for found in calls:
        for key, path in found.items():
            if key not in public:
                count[path] += 1
                public[key] = path if not path or count[path] == 1 else f"{path}#{count[path]}"
    return public


def _prefixes(
    converted: Sequence[Converted], calls: Mapping[fx.Node, Calls], public: Mapping[tuple[str, ...], str]
) -> list[tuple[str, bool]]:
    """What each call's nodes are named by, and whether that is all: one node, in a module without children."""
    parents = {key[:end] for found in calls.values() for key in found for end in range(len(key))}
    inner = [next(reversed(module_calls(item.source)), ()) for item in converted]
    made = Counter(key for key, item in zip(inner, converted, strict=True) for _ in item.nodes)
    return [(public.get(key, ""), bool(public.get(key)) and key not in parents and made[key] == 1) for key in inner]


def _returned_values(
    values: Mapping[fx.Node, str], calls: Mapping[fx.Node, Calls], live: Collection[fx.Node]
) -> dict[tuple[str, ...], str]:
    """By module call: the last value made in it that something outside reads, or the last one of all."""
    last: dict[tuple[str, ...], str] = {}
    read: dict[tuple[str, ...], str] = {}
    for node, found in calls.items():
        for key in found:
            last[key] = values[node]
            users = [user for user in node.users if user in live or user.op == "output"]
            if any(key not in module_calls(user) for user in users):
                read[key] = values[node]
    return {**last, **read}
