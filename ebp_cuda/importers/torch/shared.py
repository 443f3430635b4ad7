"""The weights that a graph shares with its module: where the module holds them, and how the graph takes over others."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ...engine.shared_weights import Place, SharedWeights, copy_params, own_view, point_to
from ...graph import Graph

_STATE = (InputKind.PARAMETER, InputKind.BUFFER)


def share_weights(graph: Graph, module: nn.Module, program: ExportedProgram, read: Callable[[], Graph]) -> None:
    """Lets the graph follow the module's weights (Graph.weights).

    Args:
        graph: what `read` gave the first time; its parameters come to show other memory when weights change.
        module: the user's, of which only the tables of tensors are kept.
        program: the exported module, whose state is what `read` takes for the weights.
        read: makes the graph anew, with parameters that are computed from weights computed again.
    """
    program._example_inputs = None  # it would keep the example alive
    places = dict(_places(module, program))
    params = [param for node in graph.nodes for param in node.params.values()]
    shown = {param.untyped_storage().data_ptr() for param in params}
    computes = shown != {program.state_dict[name].untyped_storage().data_ptr() for name in places}

    def take_over(present: Sequence[torch.Tensor]) -> None:
        state = program.state_dict
        pairs = list(zip(places, present, strict=True))
        if not computes and all(_same_memory(state[name], tensor) for name, tensor in pairs):
            for param in params:
                point_to(param, param)
            return
        state.update({name: own_view(tensor.detach()) for name, tensor in pairs})
        copy_params(graph, read())

    spoiled = [name for name in places if not _is_finite(program.state_dict[name])]
    if spoiled:
        graph.meta["not_finite"] = spoiled
    graph.weights = SharedWeights(places, take_over, _Structure(module))


_RUN_THROUGH = nn.Sequential, nn.ModuleList, nn.ModuleDict
"""Modules whose forward, or that of the module above, runs through all that they hold."""


class _Structure:
    """Which submodules a module has; it is not kept alive by this."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [
            (path, weakref.ref(part), [(name, child and weakref.ref(child)) for name, child in part._modules.items()])
            for path, part in module.named_modules()
        ]

    def __call__(self) -> str:
        """The path of a submodule that is another one now, came, or went; "" where all are as they were."""
        for path, reference, children in self._parts:
            part = reference()
            if part is None:  # the module is gone, and nobody can rebuild it
                continue
            present = part._modules
            for name, child in children:
                now = present.get(name)
                if now is not (child and child()) or (child and now is None):  # `child` is dead where it was deleted
                    return f"{path}.{name}".lstrip(".")
            if len(present) > len(children) and isinstance(part, _RUN_THROUGH):
                return path or "the module itself"
        return ""


def _places(module: nn.Module, program: ExportedProgram) -> Iterator[tuple[str, Place]]:
    """Name -> place, of every parameter and buffer that the program reads."""
    for spec in program.graph_signature.input_specs:
        if spec.kind in _STATE and spec.target in program.state_dict:
            path, _, name = str(spec.target).rpartition(".")
            owner = module.get_submodule(path)
            yield str(spec.target), (owner._parameters if name in owner._parameters else owner._buffers, name)


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor.detach())  # NaN where any element is
    return bool(low.isfinite() & high.isfinite())


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return _layout(a) == _layout(b)


def _layout(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
