"""Converters of normalisations by the input's own statistics, and of activations that ONNX got later."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from ...errors import UnsupportedError
from ...graph import Node
from .call import Call, converter


def _scaled(call: Call, core: Node, scale: np.ndarray | None, shift: np.ndarray | None) -> list[Node]:
    params = {name: array for name, array in (("scale", scale), ("shift", shift)) if array is not None}
    return [core, call.node("affine", params=params, inputs=core.outputs)]


def _per_channel(call: Call, index: int, what: str) -> np.ndarray:
    return call.required(index, what).reshape(-1, *[1] * (call.rank() - 2))


@converter("LayerNormalization")
def layer_norm(call: Call) -> list[Node]:
    rank = call.rank()
    axes = tuple(range(call.attr("axis", -1) % rank, rank))
    eps = call.attr("epsilon", 1e-5)
    core = call.step("standardize", call.inputs[:1], "core", axes=axes, eps=eps)
    return _scaled(call, core, call.required(1, "scale"), call.optional(2, "bias"))


@converter("InstanceNormalization")
def instance_norm(call: Call) -> list[Node]:
    axes = tuple(range(2, call.rank()))
    core = call.step("standardize", call.inputs[:1], "core", axes=axes, eps=call.attr("epsilon", 1e-5))
    return _scaled(call, core, _per_channel(call, 1, "scale"), _per_channel(call, 2, "bias"))


@converter("GroupNormalization")
def group_norm(call: Call) -> list[Node]:
    groups, scale, bias = call.attr("num_groups"), _per_channel(call, 1, "scale"), _per_channel(call, 2, "bias")
    channels = (call.shapes(0) or ((),))[0][1]
    if len(scale) == groups != channels:  # opset 18 has one per group
        scale, bias = (np.repeat(array, channels // groups, 0) for array in (scale, bias))
    core = call.step("standardize", call.inputs[:1], "core", axes=(), groups=groups, eps=call.attr("epsilon", 1e-5))
    return _scaled(call, core, scale, bias)


@converter("RMSNormalization")
def rms_norm(call: Call) -> Node:
    rank, shapes = call.rank(), call.shapes(0) or ()
    axes = tuple(range(call.attr("axis", -1) % rank, rank))
    counts = {prod(shape[axis] for axis in axes) for shape in shapes}
    if len(counts) != 1:
        raise UnsupportedError(f"{call.where}: normalises over an axis of any size")
    (count,) = counts
    scale = call.required(1, "scale") * np.float32(sqrt(count))
    return call.node("normalize", {"axes": axes, "eps": count * call.attr("epsilon", 1e-5)}, {"scale": scale})


@converter("LpNormalization")
def lp_norm(call: Call) -> Node:
    if call.attr("p", 2) != 2:
        raise UnsupportedError(f"{call.where}: norm of order {call.attr('p')}; wanted 2")
    axes, one = (call.attr("axis", -1),), np.ones(1, np.float32)
    return call.node("normalize", {"axes": axes, "eps": 0.0}, {"scale": one})


@converter("Gelu")
def gelu(call: Call) -> Node:
    return call.node("gelu", {"tanh": True} if call.attr("approximate", "none") == "tanh" else {})


@converter("Swish")
def swish(call: Call) -> Node:
    beta = call.attr("alpha", 1.0)
    return call.node("silu", {} if beta == 1 else {"beta": beta})


@converter("Mish")
def mish(call: Call) -> list[Node]:
    inner = call.step("softplus", call.inputs[:1], "softplus")
    gate = call.step("tanh", inner.outputs, "tanh")
    return [inner, gate, call.node("mul", inputs=(call.inputs[0], *gate.outputs))]


@converter("Selu", "Celu")
def scaled_elu(call: Call) -> list[Node]:
    if call.proto.op_type == "Celu":
        alpha = call.attr("alpha", 1.0)
        inner = call.step("affine", call.inputs[:1], "scaled", {"scale": np.asarray(1 / alpha, np.float32)})
        core = call.step("elu", inner.outputs, "elu", alpha=1.0)
        return [
            inner,
            core,
            call.node("affine", params={"scale": np.asarray(alpha, np.float32)}, inputs=core.outputs),
        ]
    core = call.step("elu", call.inputs[:1], "elu", alpha=call.attr("alpha", 1.67326319217681884765625))
    gamma = np.asarray(call.attr("gamma", 1.05070102214813232421875), np.float32)
    return [core, call.node("affine", params={"scale": gamma}, inputs=core.outputs)]
