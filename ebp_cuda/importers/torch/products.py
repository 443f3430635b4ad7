"""Converters of products with a parameter along any axes: einsum, and matrix products in all their forms."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from .. import einsum
from .aten import Activation, Call, Refusal, Result, converts

OF_TWO = "multiplies two matrices that are both computed from the input"


class _Calls:
    """Writes the steps of an equation (einsum.Steps) as nodes of a call."""

    def __init__(self, call: Call, lengths: dict[str, Any]) -> None:
        self._call, self._lengths = call, lengths

    def _shape(self, groups: einsum.Groups) -> tuple[Any, ...]:
        return tuple(prod(self._lengths[letter] for letter in group) for group in groups)

    def add_up(self, x: str, axes: tuple[int, ...]) -> str:
        return self._call.emit("reduce", x, kind="sum", axes=axes)

    def move(self, x: str, perm: tuple[int, ...]) -> str:
        return self._call.emit("transpose", x, perm=perm)

    def reshape(self, x: str, before: einsum.Groups, after: einsum.Groups) -> str:
        return self._call.reshape(Activation(x, self._shape(before)), self._shape(after))

    def scale(self, x: str, constant: torch.Tensor) -> str:
        return self._call.emit("affine", x, params={"scale": constant})

    def linear(self, x: str, weight: torch.Tensor) -> str:
        return self._call.emit("linear", x, params={"weight": weight})

    def grouped(self, x: str, weight: torch.Tensor, groups: int) -> str:
        attrs = {"stride": (1,), "padding": (0,), "padding_end": (0,), "dilation": (1,), "groups": groups}
        return self._call.emit("conv", x, params={"weight": weight}, **attrs)


def _lowered(c: Call, equation: str, operands: list[Any]) -> str:
    """The value of an equation, of which one operand is an activation."""
    activations = [operand for operand in operands if isinstance(operand, Activation)]
    if len(activations) > 1:
        raise Refusal(OF_TWO)
    if len(operands) > 2:
        raise Refusal(f"it has {len(operands)} operands, wanted one or two")
    (x,) = activations
    constants = [operand for operand in operands if isinstance(operand, torch.Tensor)]
    try:
        shape = tuple(constants[0].shape) if constants else None
        parsed = einsum.parse(equation, x.shape, shape, operands[0] is x)
        lengths: dict[str, Any] = dict(zip(parsed.x, x.shape, strict=True))
        factor = None
        if parsed.constant is not None:
            factor = einsum.Factor(parsed.constant, constants[0].squeeze(parsed.squeezed), torch.einsum)
            lengths |= factor.lengths
        return einsum.lower(parsed, x.value, factor, _Calls(c, lengths))
    except einsum.EinsumRefusal as refusal:
        raise Refusal(str(refusal)) from None


@converts("einsum")
def einsum_equation(c: Call) -> Result:
    return _lowered(c, c["equation"], list(c["tensors"]))


@converts("bmm")
def batched_matmul(c: Call) -> Result:
    return _lowered(c, "bij,bjk->bik", [c["self"], c["mat2"]])


@converts("baddbmm")
def batched_addmm(c: Call) -> Result:
    if all(isinstance(c[name], Activation) for name in ("batch1", "batch2")):
        raise Refusal(OF_TWO)
    raise Refusal("multiplies every image by a matrix of its own")


@converts("mm", "matmul", "mv")
def matmul(c: Call) -> Result:
    x, other = c["self"], c[{"mm": "mat2", "mv": "vec"}.get(c.op, "other")]
    if isinstance(x, Activation) and isinstance(other, torch.Tensor):
        if other.dim() == 1:
            value = c.emit("linear", x.value, params={"weight": other.reshape(1, -1)})
            return c.reshape(Activation(value, (*x.shape[:-1], 1), x.dtype), c.out.shape)
        if other.dim() == 2:
            return c.emit("linear", x.value, params={"weight": other.t()})
    elif isinstance(x, torch.Tensor) and x.dim() == 2 and len(other.shape) >= 3:  # times the activation's columns
        return c.emit("weighted_sum", other.value, axis=len(other.shape) - 2, params={"weight": x})
    activation_first = isinstance(x, Activation)
    activation, factor = (x, other) if activation_first else (other, x)
    equation = einsum.of_matmul(len(activation.shape), len(factor.shape), activation_first)
    return _lowered(c, equation, [x, other])
