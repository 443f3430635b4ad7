"""torch.nn.Module -> Graph, through torch.export.

The module is traced as a copy that shares its parameters: it is not edited, hooked, moved, or switched between
training and evaluation. The parameters of the graph are the module's own memory, detached.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from ...errors import InputError, ModelError, UnsupportedError
from ...graph import Graph
from ..gates import gates_last
from .inplace import reads_as_functional
from .program import first_line, read_program

Example = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


_TRACING = threading.Lock()


def from_module(
    module: nn.Module,
    example_input: Example,
    *,
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    any_size: bool = False,
) -> Graph:
    """The graph of a torch module in evaluation mode.

    example_input: float tensor [N, C, ...] on the module's device; a sequence of tensors for several positional
    inputs, a mapping for inputs by name. The graph takes any N (where torch.export cannot trace that, N is fixed to
    the example's and a warning says so); the other sizes are those of the example.
    any_size: whether images of other heights and widths than the example's are taken too, where torch.export and the
    layers allow that (a warning says so where they do not); takes longer to import.
    labels, preprocess: kept in Graph.meta (class names; the dict of preprocess.py).

    torch.export keeps process-wide state while it traces: calls from several threads wait for one another here, and an
    optimizer that steps in another thread meanwhile may fail inside torch.

    Names: every module path ("features", "layer3.0.relu") stands for what that module returned last; the second
    call of a module is "path#2". Calls in a module that has children are "path.op".
    Raises InputError where the module cannot run on the example, UnsupportedError where torch.export cannot trace it,
    or listing every ATen operation that has no counterpart.
    """
    args, kwargs = _example(module, example_input)
    origin = f"torch module {type(module).__name__}"
    with _TRACING, torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch.export sets off its own
        twin = _shared_copy(module, origin)
        graph, reason = _of_any_size(twin, args, kwargs, origin) if any_size else (None, "")
        if graph is None:
            if any_size:
                warnings.warn(f"{origin}: the image size is fixed to the example's: {reason}", stacklevel=2)
            program, reason = _trace(twin, args, kwargs, origin)
            graph = gates_last(_read(program, origin))
    if reason:
        fixed = ", ".join(f"{name}: {list(shape)}" for name, shape in graph.inputs.items())
        warnings.warn(f"{origin}: the batch size is fixed ({fixed}): {reason}", stacklevel=2)
    if labels is not None:
        graph.meta["labels"] = [str(label) for label in labels]
    if preprocess is not None:
        graph.meta["preprocess"] = dict(preprocess)
    return graph


def _example(module: nn.Module, example: Example) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    if not isinstance(module, nn.Module):
        raise InputError(f"from_module: wanted a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("from_module: a ScriptModule has no Python to trace; give the module it was made from")
    args = () if isinstance(example, Mapping) else (example,) if isinstance(example, torch.Tensor) else tuple(example)
    kwargs = dict(example) if isinstance(example, Mapping) else {}
    for name, tensor in [*enumerate(args), *kwargs.items()]:
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor).__name__
            raise InputError(f"from_module: example_input {name} is {kind}, wanted a tensor [N, C, ...]")
    if not args and not kwargs:
        raise InputError("from_module: example_input holds no tensor")
    return args, kwargs


def _pass(x: torch.Tensor) -> torch.Tensor:
    """What modules that do nothing run in the copy: a value of its own, so that their paths have one."""
    return torch.ops.aten.alias.default(x)


_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _shared_copy(module: nn.Module, origin: str) -> nn.Module:
    """A copy in evaluation mode whose modules are new and whose tensors are those of `module`."""
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    memo: dict[int, Any] = {}
    for part in module.modules():
        held = [*part.__dict__.values(), *part._parameters.values(), *part._buffers.values()]
        memo.update((id(value), value) for value in held if isinstance(value, torch.Tensor))
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:  # whatever a module's attributes raise when they are copied
        raise ModelError(f"{origin}: the module cannot be copied: {first_line(error)}") from error
    for part in twin.modules():
        if type(part) in _NOTHING:
            part.forward = _pass  # the type stays: some networks ask for it
    return twin.eval()


def _trace(
    twin: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], origin: str
) -> tuple[ExportedProgram, str]:
    """The exported module, with a free batch where torch.export finds one; else the reason."""
    more, more_by_name = tuple(map(_at_least_two, args)), {name: _at_least_two(t) for name, t in kwargs.items()}
    free = ShapesCollection()
    for tensor in (*more, *more_by_name.values()):
        free[tensor] = {0: Dim.DYNAMIC} if tensor.dim() else {}
    try:
        return _export(twin, more, more_by_name, free), ""
    except Exception as error:  # torch.export raises a dozen kinds; whether the module is at fault shows below
        reason = first_line(error)
    try:
        return _export(twin, tuple(t.detach() for t in args), {k: t.detach() for k, t in kwargs.items()}, None), reason
    except Exception as error:
        refused = error
    try:
        twin(*(t.clone() for t in args), **{k: t.clone() for k, t in kwargs.items()})
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (*args, *kwargs.values()))
        raise InputError(f"{origin}: does not run on the example input {shapes}: {first_line(error)}") from error
    raise UnsupportedError(f"{origin}: torch.export cannot trace it: {first_line(refused)}") from refused


def _of_any_size(
    twin: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], origin: str
) -> tuple[Graph | None, str]:
    """The graph with batch, height and width free, or None and the reason."""
    more, more_by_name = tuple(map(_at_least_two, args)), {name: _at_least_two(t) for name, t in kwargs.items()}
    free = ShapesCollection()
    for tensor in (*more, *more_by_name.values()):
        free[tensor] = {axis: Dim.DYNAMIC for axis in (0, *range(2, tensor.dim())) if axis < tensor.dim()}
    try:
        graph = gates_last(_read(_export(twin, more, more_by_name, free), origin))
    except Exception as error:  # as in _trace, and what the converters refuse
        return None, first_line(error)
    graph.meta["example_shapes"] = {
        name: list(t.shape) for name, t in zip(graph.inputs, (*args, *kwargs.values()), strict=False)
    }
    return graph, ""


def _export(twin: nn.Module, args: Any, kwargs: Any, shapes: Any) -> ExportedProgram:
    with torch.enable_grad():  # without it torch.export trips over a module that turns gradients on
        return torch.export.export(twin, args, kwargs, dynamic_shapes=shapes, strict=False)


def _read(program: ExportedProgram, origin: str) -> Graph:
    """The graph of the program as it was exported; decomposed only where that is needed, since it takes long."""
    refused: UnsupportedError | None = None
    if reads_as_functional(program.graph):
        try:
            return read_program(program, origin)
        except UnsupportedError as error:  # composite operations may consist of known ones
            refused = error
    with torch.enable_grad():  # without it torch.export trips over a module that turns gradients on
        program = program.run_decompositions({})
    try:
        return read_program(program, origin)
    except UnsupportedError as error:
        raise (refused or error) from None  # the first names operations as the module calls them


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    """The example with a batch that torch.export does not take for a constant; never the object that was given,
    on which torch.export leaves marks."""
    return torch.cat([tensor, tensor]) if tensor.dim() and tensor.shape[0] == 1 else tensor.detach()
