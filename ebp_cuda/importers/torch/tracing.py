"""A module through torch.export, with a free batch (and a free image size) where that can be."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from ...errors import InputError, UnsupportedError
from .messages import first_line, why_not_traced
from .sizes import ties_sizes


@dataclass(frozen=True)
class Example:
    """The tensors that a module is traced with."""

    args: tuple[torch.Tensor, ...]
    kwargs: Mapping[str, torch.Tensor]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (*self.args, *self.kwargs.values())

    @property
    def one_image(self) -> bool:
        """Whether some input is a batch of one: a module may treat that otherwise than larger ones."""
        return any(tensor.dim() and tensor.shape[0] == 1 for tensor in self.tensors)

    def copied(self) -> Example:
        """The same numbers in other memory, which a module may write to."""
        return Example(tuple(t.clone() for t in self.args), {name: t.clone() for name, t in self.kwargs.items()})

    def detached(self) -> Example:
        """The same memory in new tensors; torch.export leaves marks on those that it is given."""
        return Example(tuple(t.detach() for t in self.args), {name: t.detach() for name, t in self.kwargs.items()})

    def of_several(self) -> Example:
        """With two images at least, since torch.export takes a batch of one for a constant."""
        kwargs = {name: _at_least_two(tensor) for name, tensor in self.kwargs.items()}
        return Example(tuple(map(_at_least_two, self.args)), kwargs)


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor]) if tensor.dim() and tensor.shape[0] == 1 else tensor.detach()


def trace(twin: nn.Module, example: Example, origin: str) -> tuple[ExportedProgram, str]:
    """The exported module, with a free batch where torch.export finds one; else the reason why not.

    Raises:
        InputError: where the module does not run on the example.
        UnsupportedError: where torch.export cannot trace it.
    """
    try:
        return trace_free(twin, example, image_size=False), ""
    except Exception as error:  # torch.export raises a dozen kinds; whether the module is at fault shows below
        reason = first_line(error)
    try:
        return _export(twin, example.detached(), None), reason
    except Exception as error:
        refused = error
    _check_that_it_runs(twin, example, origin)
    raise UnsupportedError(f"{origin}: torch.export cannot trace it: {why_not_traced(refused)}") from refused


def trace_free(twin: nn.Module, example: Example, *, image_size: bool) -> ExportedProgram:
    """The exported module with a free batch, and with free sizes behind the channels if `image_size`.

    Raises:
        UnsupportedError: where free sizes are free in name only; besides, whatever torch.export raises.
    """
    several, free = example.of_several(), ShapesCollection()
    for tensor in several.tensors:
        axes = (0, *range(2, tensor.dim())) if image_size else (0,)
        free[tensor] = {axis: Dim.DYNAMIC for axis in axes if axis < tensor.dim()}
    program = _export(twin, several, free)
    if tied := ties_sizes(program):
        raise UnsupportedError(f"the module computes with sizes of the example: {tied}")
    return program


def _check_that_it_runs(twin: nn.Module, example: Example, origin: str) -> None:
    try:
        own = copy.deepcopy(twin)  # it may write to its weights, which the twin shares with the user's module
    except Exception:  # then nobody can say
        return
    inputs = example.copied()
    try:
        own(*inputs.args, **inputs.kwargs)
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in example.tensors)
        raise InputError(f"{origin}: does not run on the example input {shapes}: {first_line(error)}") from error


def _export(twin: nn.Module, example: Example, shapes: Any) -> ExportedProgram:
    """shapes: a ShapesCollection, which torch's own type of the argument leaves out, or None for fixed sizes."""
    with torch.enable_grad():  # without it torch.export trips over a module that turns gradients on
        return torch.export.export(twin, example.args, dict(example.kwargs), dynamic_shapes=shapes, strict=False)
