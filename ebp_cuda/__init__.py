"""Excitation Backprop: probability put on a class, carried down a network to where it lands in the image.

net = ebp_cuda.load("deploy.prototxt", "weights.caffemodel")
maps = ebp_cuda.ExcitationBackprop(net, layer="pool2/3x3_s2", contrast_layer="pool5/7x7_s1").attribute(x, 281)
"""

from __future__ import annotations

from . import functional, jit
from .api import Attribution, ExcitationBackprop, contrastive_excitation_backprop, excitation_backprop
from .engine.condition import PrecisionWarning
from .errors import EBPError, InputError, ModelError, ShapeError, UnsupportedError
from .graph import Graph, Node
from .net import Net, from_torch, load
from .rules import register_operation, register_rule
from .rules.relevance import Relevance

__version__ = "0.1.0"

__all__ = [
    "Attribution",
    "EBPError",
    "ExcitationBackprop",
    "Graph",
    "InputError",
    "ModelError",
    "Net",
    "Node",
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
