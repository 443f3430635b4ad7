"""torch.nn.Module -> Graph, through torch.export.

The module is traced as a copy that shares its parameters: it is not edited, hooked, moved, or switched between
training and evaluation. The parameters of the graph are the module's own memory, detached.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from ...errors import InputError, UnsupportedError
from ...graph import Graph
from ..gates import gates_last
from .archive import load_archive
from .inplace import reads_as_functional, refuse_written_state
from .messages import first_line, why_not_traced
from .program import read_program
from .shared import share_weights
from .shared_copy import shared_copy
from .sizes import size_conditions
from .tracing import Example, trace, trace_free

ExampleInput = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]

_TRACING = threading.Lock()


def from_module(
    module: nn.Module,
    example_input: ExampleInput,
    *,
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    any_size: bool = False,
) -> Graph:
    """The graph of a torch module in evaluation mode.

    torch.export keeps process-wide state while it traces: calls from several threads wait for one another here, and an
    optimizer that steps in another thread meanwhile may fail inside torch.

    Names: every module path ("features", "layer3.0.relu") stands for what that module returned last; the second
    call of a module is "path#2". Calls in a module that has children are "path.op".

    Args:
        module: left as it is, with its memory shared. Hooks of its own take no part in the network.
        example_input: float tensor [N, C, ...] on the module's device; a sequence of tensors for several positional
            inputs, a mapping for inputs by name. The graph takes any N (where torch.export cannot trace that, N is
            fixed to the example's and a warning says so); the other sizes are those of the example.
        labels: class names, kept in Graph.meta.
        preprocess: the dict of images/preprocess.py, kept in Graph.meta.
        any_size: whether images of other heights and widths than the example's are taken too, where torch.export and
            the layers allow that (a warning says so where they do not); takes longer to import.

    Raises:
        InputError: where the module cannot run on the example.
        ModelError: where the module cannot be copied, or has weights without numbers.
        UnsupportedError: where torch.export cannot trace the module, where a forward writes the module's own weights,
            where a hook may change values, and listing every ATen operation that has no counterpart.

    Warns of weights that hold NaN or infinite numbers; Graph.meta has their names as "not_finite".
    """
    origin = f"torch module {type(module).__name__}"
    with _TRACING, torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch.export sets off its own
        example = _checked_example(module, example_input)
        module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
        twin = shared_copy(module, origin)
        graph, reason = _of_any_size(module, twin, example, origin) if any_size else (None, "")
        if graph is None:
            if any_size:
                warnings.warn(f"{origin}: the image size is fixed to the example's: {reason}", stacklevel=2)
            program, reason = trace(twin, example, origin)
            graph = _read(module, program, origin, example.one_image)
    if reason:
        fixed = ", ".join(f"{name}: {list(shape)}" for name, shape in graph.inputs.items())
        warnings.warn(f"{origin}: the batch size is fixed ({fixed}): {reason}", stacklevel=2)
    if spoiled := graph.meta.get("not_finite"):
        few = ", ".join(f"'{name}'" for name in spoiled[:5])
        more = f" and {len(spoiled) - 5} more" if len(spoiled) > 5 else ""
        warnings.warn(f"{origin}: NaN or infinite numbers in {few}{more}", stacklevel=2)
    graph.meta["source"] = "torch"
    if labels is not None:
        graph.meta["labels"] = [str(label) for label in labels]
    if preprocess is not None:
        graph.meta["preprocess"] = dict(preprocess)
    return graph


def from_archive(path: str | Path, *, trust: bool = False) -> Graph:
    """The graph of a program that torch.export.save wrote (.pt2), by the module paths that it was exported with.

    It takes as many images, and of such sizes, as it was exported for.

    Args:
        path: the file.
        trust: see `archive.load_archive`.

    Raises:
        ModelError: where the file is missing or no such archive.
        UnsupportedError: where it holds more than tensors, operators and sizes, and listing every ATen operation that
            has no counterpart.
    """
    program = load_archive(path, trust=trust)
    with _TRACING, torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        refuse_written_state(program, str(path))
        graph, _ = _converted(program, str(path), one_image=False)
    graph.meta["source"] = "torch"
    return graph


def _checked_example(module: nn.Module, example: ExampleInput) -> Example:
    if not isinstance(module, nn.Module):
        raise InputError(f"from_module: wanted a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("from_module: a ScriptModule has no Python to trace; give the module it was made from")
    by_name = isinstance(example, Mapping)
    named: dict[Any, torch.Tensor] = {}
    if isinstance(example, Mapping):
        named = dict(example)
    else:
        named = dict(enumerate([example] if isinstance(example, torch.Tensor) else example))
    for name, tensor in named.items():
        where = f"from_module: example_input {name}"
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{where} is {type(tensor).__name__}, wanted a tensor [N, C, ...]")
        if tensor.is_meta or tensor.layout is not torch.strided:
            kind = "on the meta device, without numbers" if tensor.is_meta else f"sparse ({tensor.layout})"
            raise InputError(f"{where} is {kind}; wanted a dense tensor [N, C, ...]")
    if not named:
        raise InputError("from_module: example_input holds no tensor")
    plain = {name: t.clone() if t.is_inference() else t for name, t in named.items()}
    return Example((), plain) if by_name else Example(tuple(plain.values()), {})


def _of_any_size(module: nn.Module, twin: nn.Module, example: Example, origin: str) -> tuple[Graph | None, str]:
    """The graph with batch, height and width free, or None and the reason."""
    try:
        program = trace_free(twin, example, image_size=True)
        graph = _read(module, program, origin, example.one_image)
    except Exception as error:  # as in trace, and what the converters refuse
        return None, first_line(error)
    sizes = zip(graph.inputs, example.tensors, strict=False)
    graph.meta["example_shapes"] = {name: list(tensor.shape) for name, tensor in sizes}
    return graph, ""


def _read(module: nn.Module, program: ExportedProgram, origin: str, one_image: bool) -> Graph:
    """The graph of a program, with the weights that it shares and the conditions on sizes that it was traced under."""
    refuse_written_state(program, origin)
    graph, program = _converted(program, origin, one_image)
    share_weights(graph, module, program, lambda: gates_last(read_program(program, origin, one_image)))
    features = {node.params["weight"].shape[1] for node in graph.nodes if node.op == "linear"}
    conditions = size_conditions(program, features)
    if conditions:
        graph.meta["size_conditions"] = conditions
    return graph


def _converted(program: ExportedProgram, origin: str, one_image: bool) -> tuple[Graph, ExportedProgram]:
    """The program as it was exported; decomposed only where that is needed, since it takes long."""
    refused: UnsupportedError | None = None
    if reads_as_functional(program.graph):
        try:
            return gates_last(read_program(program, origin, one_image)), program
        except UnsupportedError as error:  # composite operations may consist of known ones
            refused = error
    try:
        with torch.enable_grad():  # as in tracing.py
            program = program.run_decompositions({})
    except Exception as error:  # as torch.export
        reason = f"{origin}: torch.export cannot decompose it: {why_not_traced(error)}"
        raise (refused or UnsupportedError(reason)) from error
    try:
        return gates_last(read_program(program, origin, one_image)), program
    except UnsupportedError as error:
        raise (refused or error) from None  # the first names operations as the module calls them
