"""The network as the engine sees it: a list of nodes in topological order.

Every importer (ONNX, Caffe through ONNX, torch) ends here and nothing above this file knows where a
network came from. Values are in static single assignment form: each value name is written once. What a
Caffe in-place layer overwrites therefore has several values, and `Graph.names` maps the blob to all of them.

The operations of `Node.op` stand in vocabulary.py, with their attributes and parameters; a node that does not fit its
operation cannot be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakMethod

import torch

from .errors import InputError, ModelError, nearest_names
from .vocabulary import signature_of


@dataclass(frozen=True)
class Node:
    """One operation: reads the values `inputs`, writes the values `outputs`.

    Raises:
        ModelError: where the operation does not exist (vocabulary.SIGNATURES) or takes no such attributes, parameters
            or number of inputs.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """By name, complete: those that were not given have their defaults."""
    params: Mapping[str, torch.Tensor] = field(default_factory=dict)
    source: str = ""
    """Type in the imported model, for messages and summaries: "Convolution", "Conv", "aten.conv2d"."""

    def __post_init__(self) -> None:
        signature = signature_of(self.op)
        if signature is not None:
            where = f"layer '{self.name}' ({self.source or self.op})"
            counts = len(self.inputs), len(self.outputs)
            complete = signature.checked(where, self.attrs, self.params, counts)
            object.__setattr__(self, "attrs", complete)  # the class is frozen; nobody holds the node yet


class Weights(Protocol):
    """Weights that a graph shares with their owner, who may write to them (engine/shared_weights.py)."""

    followers: list[WeakMethod[Callable[[], None]]]
    """What is to be done as well when weights were taken over."""

    def update(self, check: str = "sampled") -> bool:
        """Takes over what was written since the last call; whether anything was."""

    def refresh(self) -> None:
        """Takes over the present weights."""

    def check(self) -> None:
        """Waits for what a GPU still compares."""


@dataclass
class Graph:
    """A network: nodes in topological order, and the names by which people ask for its values."""

    nodes: list[Node]
    inputs: dict[str, tuple[int | None, ...]]
    """Input values and their declared shapes; None where a dim is free, as the batch is unless layers need a fixed
    one."""
    outputs: tuple[str, ...]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Public name (Caffe blob or layer, ONNX node, torch module path) -> the values it held, first to last.
    An activation asked by that name is the last one; the relevance is that of the first one, because a
    backward sweep overwrites an in-place blob in the opposite order."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the model file says about itself: "origin" (path), "labels" (list of str), "preprocess" (dict); "modules"
    (names that are torch's module paths) of an ONNX file by torch's exporters; from torch
    also "example_shapes" (by input), "size_conditions" (importers/torch/sizes.py), "not_finite" (names of weights)."""

    weights: Weights | None = None
    """What watches weights that belong to somebody else, a torch module; None where they are the graph's own."""

    def __post_init__(self) -> None:
        self.producer: dict[str, int] = {}
        known = set(self.inputs)
        for index, node in enumerate(self.nodes):
            for value in node.inputs:
                if value not in known:
                    raise ModelError(
                        f"{self.origin}: layer '{node.name}' ({node.source or node.op}) reads '{value}', "
                        f"which no earlier layer writes{nearest_names(value, known)}"
                    )
            for value in node.outputs:
                if value in known:
                    raise ModelError(f"{self.origin}: layer '{node.name}' writes '{value}' a second time")
                known.add(value)
                self.producer[value] = index
        for value in self.outputs:
            if value not in known:
                raise ModelError(f"{self.origin}: output '{value}' is written by no layer{nearest_names(value, known)}")

    @property
    def origin(self) -> str:
        """The file or object the graph came from, for messages."""
        return str(self.meta.get("origin", "model"))

    @property
    def source(self) -> str:
        """What kind of file or object the graph came from: "caffe" (also by way of an ONNX file that the import wrote),
        "onnx" or "torch"; "" where nobody said."""
        return str(self.meta.get("source", ""))

    def known_names(self) -> list[str]:
        """Every name that `resolve` takes."""
        return list(dict.fromkeys([*self.names, *self.inputs, *self.producer]))

    def resolve(self, name: str) -> tuple[str, ...]:
        """The values that `name` held, first to last. Raises InputError with the nearest names."""
        if name in self.names:
            return self.names[name]
        if name in self.producer or name in self.inputs:
            return (name,)
        nearest = nearest_names(name, self.known_names())
        raise InputError(f"{self.origin}: no layer or blob '{name}'{nearest} (`ebp-cuda layers` lists all)")

    def ancestors(self, values: Iterable[str]) -> set[int]:
        """Indices of the nodes that the given values depend on, their producers included."""
        indices: set[int] = set()
        queue = [self.producer[v] for v in values if v in self.producer]
        while queue:
            index = queue.pop()
            if index not in indices:
                indices.add(index)
                queue.extend(self.producer[v] for v in self.nodes[index].inputs if v in self.producer)
        return indices

    def descendants(self, values: Iterable[str]) -> set[int]:
        """Indices of the nodes that depend on any of the given values."""
        reached = set(values)
        indices: set[int] = set()
        for index, node in enumerate(self.nodes):
            if reached.intersection(node.inputs):
                indices.add(index)
                reached.update(node.outputs)
        return indices
