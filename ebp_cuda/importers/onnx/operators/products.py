"""Converters of products with a constant along any axes: Einsum, and MatMul in all its forms."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ....graph import Node
from ... import einsum
from ..call import Call, converter
from ..shaping import target_shape
from ..sizes import Shapes


class _Nodes:
    """Writes the steps of an equation (einsum.Steps) as nodes of a call."""

    def __init__(self, call: Call, lengths: dict[str, tuple[int, ...]]) -> None:
        self._call, self._lengths = call, lengths
        self.made: list[Node] = []

    def _step(self, op: str, x: str, params: dict[str, np.ndarray] | None = None, **attrs: Any) -> str:
        self.made.append(self._call.step(op, x, f"step{len(self.made)}", params, **attrs))
        return self.made[-1].outputs[0]

    def _shapes(self, groups: einsum.Groups) -> Shapes:
        probes = range(len(self._call.model.sizes.probes))
        return tuple(tuple(prod(self._lengths[n][i] for n in group) for group in groups) for i in probes)

    def add_up(self, x: str, axes: tuple[int, ...]) -> str:
        return self._step("reduce", x, kind="sum", axes=axes)

    def move(self, x: str, perm: tuple[int, ...]) -> str:
        return self._step("transpose", x, perm=perm)

    def reshape(self, x: str, before: einsum.Groups, after: einsum.Groups) -> str:
        if list(before) == list(after):
            return x
        return self._step("reshape", x, shape=target_shape(self._call, self._shapes(before), self._shapes(after)))

    def scale(self, x: str, constant: np.ndarray) -> str:
        return self._step("affine", x, {"scale": constant})

    def linear(self, x: str, weight: np.ndarray) -> str:
        return self._step("linear", x, {"weight": weight})

    def grouped(self, x: str, weight: np.ndarray, groups: int) -> str:
        attrs = {"stride": (1,), "padding": (0,), "padding_end": (0,), "dilation": (1,), "groups": groups}
        return self._step("conv", x, {"weight": weight}, **attrs)


def _lowered(call: Call, equation: str) -> list[Node]:
    """The nodes of an equation whose operands are the call's inputs, of which one is an activation."""
    x_first = call.inputs[0] in call.activations
    x_index = 0 if x_first else 1
    name = ("first" if x_index else "second") + " factor"
    constant = call.required(1 - x_index, name) if len(call.inputs) == 2 else None
    shapes = call.known_shapes(x_index)
    x_shape = [lengths[0] if len(set(lengths)) == 1 else lengths for lengths in zip(*shapes, strict=True)]
    try:
        parsed = einsum.parse(equation, x_shape, None if constant is None else constant.shape, x_first)
        lengths = dict(zip(parsed.x, zip(*shapes, strict=True), strict=True))
        factor = None
        if constant is not None and parsed.constant is not None:
            factor = einsum.Factor(parsed.constant, np.squeeze(constant, parsed.squeezed), np.einsum)
            lengths |= {letter: (n,) * len(shapes) for letter, n in factor.lengths.items()}
        nodes = _Nodes(call, lengths)
        value = einsum.lower(parsed, call.inputs[x_index], factor, nodes)
    except einsum.EinsumRefusal as refusal:
        raise call.refusal(str(refusal)) from None
    if not nodes.made:
        return [call.node("identity", inputs=value)]
    return [*nodes.made[:-1], replace(nodes.made[-1], name=call.name, outputs=tuple(call.outputs[:1]))]


@converter("Einsum", since=12)
def einsum_equation(call: Call) -> list[Node]:
    """Of one value, or of a value and a constant in either order; not the diagonal of a value."""
    if len(call.inputs) > 2:
        raise call.refusal(f"it has {len(call.inputs)} operands", "one or two")
    if not call.activations:
        raise call.refusal("its operands do not depend on the image", "an activation")
    return _lowered(call, call.attr("equation"))


@converter("MatMul")
def matmul(call: Call) -> list[Node]:
    """By a constant matrix or vector, from either side; by one matrix for each channel, too."""
    weight = call.constant(1)
    if weight is None or weight.ndim > 2:
        x_index = 0 if call.inputs[0] in call.activations else 1
        other = call.constant(1 - x_index)
        rank = other.ndim if other is not None else 0
        return _lowered(call, einsum.of_matmul(call.rank(x_index), rank, x_index == 0))
    if weight.ndim == 2:
        return [call.node("linear", params={"weight": weight.T}, inputs=call.x)]
    product = call.step("linear", call.x, "product", {"weight": weight.reshape(1, -1)})
    return [product, call.node("squeeze", {"axes": (-1,)}, inputs=product.outputs)]
