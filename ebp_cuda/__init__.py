"""Excitation Backprop: probability put on a class, carried down a network to where it lands in the image.

net = ebp_cuda.load("deploy.prototxt", "weights.caffemodel")
maps = ebp_cuda.ExcitationBackprop(net, layer="pool2/3x3_s2", contrast_layer="pool5/7x7_s1").attribute(x, 281)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import aliases, functional, jit
from .api import Attribution, ExcitationBackprop, contrastive_excitation_backprop, excitation_backprop
from .engine.condition import PrecisionWarning
from .errors import EBPError, InputError, ModelError, NumericError, ShapeError, UnsupportedError
from .graph import Graph, Node
from .net import Net, from_torch, load
from .rules import register_operation, register_rule
from .rules.relevance import Relevance

if TYPE_CHECKING:
    from .compat import pycaffe as caffe  # noqa: F401 - for type checkers; at run time `aliases` finds it

__version__ = "0.1.0"

aliases.install()


def __getattr__(name: str) -> Any:
    """The modules of `aliases`, and rooms that are imported when they are first asked for."""
    if name in aliases.SAME or name in aliases.MOVED or name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


_ROOMS = {"batch", "catalogue", "cli", "compat", "eval", "images", "importers", "models", "ops", "rules"}

__all__ = [
    "Attribution",
    "EBPError",
    "ExcitationBackprop",
    "Graph",
    "InputError",
    "ModelError",
    "Net",
    "Node",
    "NumericError",
    "PrecisionWarning",
    "Relevance",
    "ShapeError",
    "UnsupportedError",
    "contrastive_excitation_backprop",
    "excitation_backprop",
    "from_torch",
    "functional",
    "jit",
    "load",
    "register_operation",
    "register_rule",
]
