"""Functions of one element that neither Caffe nor the usual networks have; rules as in pointwise.py.

"caffe" takes the ordinary gradient, "conserving" hands p on.
"""

from __future__ import annotations

import torch

from .pointwise import Attrs, Function, enter_function
from .registry import Params


def _flat(a: Attrs, p: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The slope of a staircase."""
    return torch.zeros_like(x)


def _shrink(a: Attrs, p: Params, x: torch.Tensor) -> torch.Tensor:
    above, below = x > a["lambd"], x < -a["lambd"]
    return torch.where(above, x - a["bias"], torch.where(below, x + a["bias"], torch.zeros_like(x)))


FUNCTIONS = {
    "sin": Function(lambda a, p, x: x.sin(), lambda a, p, x, y: x.cos()),
    "cos": Function(lambda a, p, x: x.cos(), lambda a, p, x, y: -x.sin()),
    "tan": Function(lambda a, p, x: x.tan(), lambda a, p, x, y: 1 + y * y),
    "sinh": Function(lambda a, p, x: x.sinh(), lambda a, p, x, y: x.cosh(), keeps=True),
    "cosh": Function(lambda a, p, x: x.cosh(), lambda a, p, x, y: x.sinh(), non_negative=True),
    "asin": Function(lambda a, p, x: x.asin(), lambda a, p, x, y: (1 - x * x).rsqrt(), keeps=True),
    "acos": Function(lambda a, p, x: x.acos(), lambda a, p, x, y: -(1 - x * x).rsqrt(), non_negative=True),
    "atan": Function(lambda a, p, x: x.atan(), lambda a, p, x, y: 1 / (1 + x * x), keeps=True),
    "asinh": Function(lambda a, p, x: x.asinh(), lambda a, p, x, y: (1 + x * x).rsqrt(), keeps=True),
    "acosh": Function(lambda a, p, x: x.acosh(), lambda a, p, x, y: (x * x - 1).rsqrt(), non_negative=True),
    "atanh": Function(lambda a, p, x: x.atanh(), lambda a, p, x, y: 1 / (1 - x * x), keeps=True),
    "softsign": Function(lambda a, p, x: x / (1 + x.abs()), lambda a, p, x, y: (1 + x.abs()) ** -2, keeps=True),
    "sign": Function(lambda a, p, x: x.sign(), _flat, keeps=True),
    "floor": Function(lambda a, p, x: x.floor(), _flat, keeps=True),
    "ceil": Function(lambda a, p, x: x.ceil(), _flat, keeps=True),
    "round": Function(lambda a, p, x: x.round(), _flat, keeps=True),
    "trunc": Function(lambda a, p, x: x.trunc(), _flat, keeps=True),
    "thresholded_relu": Function(
        lambda a, p, x: torch.where(x > a["alpha"], x, torch.zeros_like(x)),
        lambda a, p, x, y: (x > a["alpha"]).to(x.dtype),
        keeps=True,
    ),
    "shrink": Function(_shrink, lambda a, p, x, y: (x.abs() > a["lambd"]).to(x.dtype)),
    "at_least": Function(
        lambda a, p, x: torch.maximum(x, p["least"]),
        lambda a, p, x, y: (x > p["least"]).to(x.dtype),
        keeps=True,
    ),
    "powers": Function(
        lambda a, p, x: x ** p["exponent"],
        lambda a, p, x, y: p["exponent"] * x ** (p["exponent"] - 1),
    ),
}

for _name, _function in FUNCTIONS.items():
    enter_function(_name, _function)
