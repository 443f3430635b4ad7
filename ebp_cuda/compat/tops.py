"""Where a sweep starts in a network with one output or several."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from ..net import Net
from .modules import value_of

Top = str | int | nn.Module | None
"""An output of the model by its place among them, a layer by name or as the module; None: the only output."""


def top_of(net: Net, model: Net | nn.Module, top: Top) -> str:
    """The value with the scores: of an output the one above its softmax or sigmoid, of a layer what it returned last.

    Raises InputError where there is no such output or layer, and for None where there are several outputs.
    """
    if top is None:
        return net.default_top()
    if isinstance(top, (str, nn.Module)):
        return value_of(net, model, top, "top")
    outputs = net.graph.outputs
    if isinstance(top, bool) or not isinstance(top, int) or not -len(outputs) <= top < len(outputs):
        raise InputError(f"top={top!r}: the model has {len(outputs)} outputs; wanted a place among them, or a layer")
    return net.default_top(outputs[top])
