"""Excitation Backprop: probability put on a class, carried down a network to where it lands in the image.

net = ebp_cuda.load("deploy.prototxt", "weights.caffemodel")
maps = ebp_cuda.ExcitationBackprop(net, layer="pool2/3x3_s2", contrast_layer="pool5/7x7_s1").attribute(x, 281)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import aliases
from .errors import EBPError, InputError, ModelError, NumericError, ShapeError, UnsupportedError

if TYPE_CHECKING:  # at run time `__getattr__` finds these, when they are first asked for
    from . import functional, jit
    from .api import ExcitationBackprop, contrastive_excitation_backprop, excitation_backprop
    from .attribution import Attribution, ClassesAt
    from .compat import pycaffe as caffe  # noqa: F401
    from .engine.condition import PrecisionWarning, ShareWarning
    from .explanation import Explanation, explain
    from .export import export_onnx
    from .graph import Graph, Node
    from .net import Net, from_torch, load
    from .places import RulesNotice
    from .rules import register_operation, register_rule
    from .rules.relevance import Relevance

__version__ = "0.1.0"

aliases.install()


_HOMES = {
    "api": ("ExcitationBackprop", "contrastive_excitation_backprop", "excitation_backprop"),
    "attribution": ("Attribution", "ClassesAt"),
    "explanation": ("Explanation", "explain"),
    "engine.condition": ("PrecisionWarning", "ShareWarning"),
    "export": ("export_onnx",),
    "graph": ("Graph", "Node"),
    "net": ("Net", "from_torch", "load"),
    "places": ("RulesNotice",),
    "rules": ("register_operation", "register_rule"),
    "rules.relevance": ("Relevance",),
}
"""Where the public names are made. They bring torch, which takes seconds to import, so nothing does before one of them
is asked for: `ebp-cuda --help` must not."""

_ROOMS = {
    *("batch", "catalogue", "cli", "compat", "eval", "explanation", "export", "functional"),
    *("images", "importers", "jit", "models", "ops", "rules"),
}


def __getattr__(name: str) -> Any:
    """Public names, rooms, and the modules of `aliases`, imported when they are first asked for."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
            return value
    if name in aliases.SAME or name in aliases.MOVED or name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


__all__ = [
    "Attribution",
    "ClassesAt",
    "EBPError",
    "ExcitationBackprop",
    "Explanation",
    "Graph",
    "InputError",
    "ModelError",
    "Net",
    "Node",
    "NumericError",
    "PrecisionWarning",
    "Relevance",
    "RulesNotice",
    "ShapeError",
    "ShareWarning",
    "UnsupportedError",
    "contrastive_excitation_backprop",
    "excitation_backprop",
    "explain",
    "export_onnx",
    "from_torch",
    "functional",
    "jit",
    "load",
    "register_operation",
    "register_rule",
]
