"""The networks of torch modules that an adapter was called with: imported once, forgotten with their module.

A network follows its module's weights by itself. What an import looked at besides (layers, their settings, the shapes
of weights) is compared at every call.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError, UnsupportedError, nearest_names
from ..graph import Graph, Node
from ..importers.torch import from_module
from ..net import Net

Key = tuple[tuple[Any, ...], ...]

_SIZES = 8
"""Input sizes that are kept per module, the last ones used."""


class _Networks:
    """The networks of one module, by input sizes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.structure: Key = ()
        self.imported: OrderedDict[Key, Net] = OrderedDict()

    def network(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> Net:
        with self.lock:
            if (structure := _structure(module)) != self.structure:
                self.imported.clear()
                self.structure = structure
            keys = [_key(inputs, free_batch) for free_batch in (True, False)]
            key = next((key for key in keys if key in self.imported), None)
            if key is None:
                key = self._enter(module, inputs)
            self.imported.move_to_end(key)
            while len(self.imported) > _SIZES:
                self.imported.popitem(last=False)
            return self.imported[key]

    def _enter(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> Key:
        net = Net(from_module(module, [tensor.detach() for tensor in inputs]))
        free_batch = all(sizes[:1] == (None,) for sizes in net.graph.inputs.values())
        key = _key(inputs, free_batch)
        for other in self.imported.values():
            if _alike(other.graph, net.graph):
                _accept_both(other.graph, net.graph)
                self.imported[key] = other
                return key
        self.imported[key] = net
        return key


_NETWORKS: weakref.WeakKeyDictionary[nn.Module, _Networks] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def uncompiled(model: Net | nn.Module) -> Net | nn.Module:
    """What torch.compile wrapped, if it did."""
    return getattr(model, "_orig_mod", model)


def network(model: Net | nn.Module, inputs: Sequence[torch.Tensor]) -> Net:
    """The network of a torch module for inputs [N, ...] of these sizes, in evaluation mode; a Net is itself.

    Raises InputError for another kind of model, UnsupportedError as `ebp_cuda.from_torch` does.
    """
    model = uncompiled(model)
    if isinstance(model, Net):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; wanted a torch.nn.Module or an ebp_cuda Net")
    for i, tensor in enumerate(inputs):
        if not isinstance(tensor, torch.Tensor):
            raise UnsupportedError(f"input {i} is a {type(tensor).__name__}; a torch module is imported from tensors")
    with _LOCK:
        held = _NETWORKS.setdefault(model, _Networks())
    return held.network(model, inputs)


def value_of(net: Net, model: Net | nn.Module, layer: str | nn.Module, argument: str) -> str:
    """The value that a layer, given by name or as the module itself, returned last; "" is the network's input.

    Raises InputError that names the argument.
    """
    model = uncompiled(model)
    if layer == "":
        return next(iter(net.graph.inputs))
    if isinstance(layer, str):
        names = [layer]
    elif isinstance(layer, nn.Module) and isinstance(model, nn.Module):
        names = [name for name, part in model.named_modules(remove_duplicate=False) if part is layer]
        if not names:
            raise InputError(f"{argument}: this {type(layer).__name__} is no part of the {type(model).__name__}")
    else:
        raise InputError(f"{argument} is a {type(layer).__name__}; wanted a layer's name, or a module of the model")
    known = [name for name in names if name in net.graph.names or name in net.graph.producer]
    if not known:
        near = nearest_names(names[0], net.graph.known_names())
        raise InputError(f"{argument}='{names[0]}': {net.graph.origin} has no such layer{near}")
    calls = [name for name in net.graph.names if name.rpartition("#")[0] == known[0]]
    return net.graph.resolve(calls[-1] if calls else known[0])[-1]


def nodes_with(net: Net, weight: torch.Tensor) -> frozenset[int]:
    """The layers that use this very weight."""
    place = weight.untyped_storage().data_ptr(), weight.data_ptr()

    def uses(node: Node) -> bool:
        held = node.params.get("weight")
        return held is not None and (held.untyped_storage().data_ptr(), held.data_ptr()) == place

    return frozenset(index for index, node in enumerate(net.graph.nodes) if uses(node))


def _structure(module: nn.Module) -> Key:
    """What an import depends on besides the numbers in the weights: modules, settings, the kinds of their tensors.

    Asked at every call, so it goes through the modules by hand: named_modules takes several times as long.
    """
    entries: list[Any] = []
    waiting, met = [module], set[int]()
    while waiting:
        part = waiting.pop()
        entries += (id(part), type(part))
        if id(part) not in met:
            met.add(id(part))
            entries += _settings(part)
            entries += _kinds_of_tensors(part)
            entries += part._modules
            waiting += [child for child in part._modules.values() if child is not None]
    return tuple(entries)


_PLAIN = frozenset((int, float, str, bool, type(None)))


def _settings(part: nn.Module) -> list[Any]:
    """A module's attributes that are plain values, and a forward or hooks of its own."""
    state = part.__dict__
    entries: list[Any] = [item for item in state.items() if _is_plain(item[1]) and item[0] != "training"]
    if "forward" in state:  # an instance may have its own
        entries.append(id(getattr(state["forward"], "__func__", state["forward"])))
    entries += part._forward_hooks
    entries += part._forward_pre_hooks
    return entries


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and _PLAIN.issuperset(map(type, value)))


def _kinds_of_tensors(part: nn.Module) -> list[Any]:
    tables = (part._parameters, part._buffers)
    return [(name, t.shape, t.dtype, t.device) for table in tables for name, t in table.items() if t is not None]


def _key(inputs: Sequence[torch.Tensor], free_batch: bool) -> Key:
    return tuple((t.shape[1:] if free_batch else t.shape, t.dtype, t.device, free_batch) for t in inputs)


def _alike(a: Graph, b: Graph) -> bool:
    """Whether two imports of one module differ at most in the sizes of their inputs."""
    if len(a.nodes) != len(b.nodes) or a.outputs != b.outputs or list(a.inputs) != list(b.inputs):
        return False
    if any(len(a.inputs[name]) != len(b.inputs[name]) for name in a.inputs):
        return False
    return all(_same(p, q) for p, q in zip(a.nodes, b.nodes, strict=True))


def _same(a: Node, b: Node) -> bool:
    if (a.name, a.op, a.inputs, a.outputs, a.attrs) != (b.name, b.op, b.inputs, b.outputs, b.attrs):
        return False
    places = [{key: (t.data_ptr(), t.shape, t.stride(), t.dtype) for key, t in node.params.items()} for node in (a, b)]
    return places[0] == places[1]


def _accept_both(graph: Graph, other: Graph) -> None:
    for name, sizes in other.inputs.items():
        pairs = zip(graph.inputs[name], sizes, strict=True)
        graph.inputs[name] = tuple(n if n == m else None for n, m in pairs)
