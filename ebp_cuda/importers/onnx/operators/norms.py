"""Converters of normalizations, by stored statistics and by the input's own."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from ....graph import Node
from ..call import Call, converter
from ..shaping import affine, last


@converter("BatchNormalization", until=6)
def batch_norm_by_is_test(call: Call) -> Node:
    """With stored statistics per channel."""
    if not call.flag("is_test"):
        raise call.refusal("attribute is_test = 0: statistics of the batch", "1")
    return _batch_norm(call)


@converter("BatchNormalization", since=7, until=13)
def batch_norm_of_inference(call: Call) -> Node:
    """With stored statistics per channel."""
    return _batch_norm(call)


@converter("BatchNormalization", since=14)
def batch_norm(call: Call) -> Node:
    """With stored statistics per channel."""
    if call.flag("training_mode"):
        raise call.refusal("attribute training_mode = 1: statistics of the batch", "0")
    return _batch_norm(call)


def _batch_norm(call: Call) -> Node:
    call.no_attr("spatial", 1, "1: statistics per channel")
    call.ignore_attrs("momentum")
    names = ("weight", "bias", "mean", "var")
    params = {name: call.required(index + 1, name) for index, name in enumerate(names)}
    return call.node("batch_norm", {"eps": call.attr("epsilon", 1e-5)}, params, inputs=call.x)


def _per_channel(call: Call, index: int, what: str) -> np.ndarray:
    return call.required(index, what).reshape(-1, *[1] * (call.rank() - 2))


def _scaled(call: Call, core: Node, scale: np.ndarray | None, shift: np.ndarray | None) -> list[Node]:
    params = {name: array for name, array in (("scale", scale), ("shift", shift)) if array is not None}
    return [core, *affine(call, core.outputs[0], call.shapes(), **params)]


@converter("LayerNormalization", since=17)
def layer_norm(call: Call) -> list[Node]:
    """Over the last axes; mean and inverse deviation too."""
    rank = call.rank()
    axes = tuple(range(call.axis(call.attr("axis", -1)), rank))
    eps = call.attr("epsilon", 1e-5)
    call.no_attr("stash_type", 1, "1: computed in float32")
    core = call.step("standardize", call.x, "core", axes=axes, eps=eps)
    nodes = _scaled(call, core, call.required(1, "scale"), call.optional(2, "bias"))
    if not (call.is_asked(1) or call.is_asked(2)):
        return nodes
    mean = _mean(call, call.x, axes, "mean")
    spread = call.step("expand", (last(mean, ""), call.x), "spread")
    apart = call.step("sum", (call.x, *spread.outputs), "apart", coefficients=(1.0, -1.0))
    squares = call.step("power", apart.outputs, "squares", power=2.0)
    variance = _mean(call, squares.outputs[0], axes, "variance")
    shifted = call.step("affine", last(variance, ""), "shifted", {"shift": np.asarray(eps, np.float32)})
    nodes += [*mean, spread, apart, squares, *variance, shifted]
    if call.is_asked(1):
        nodes.append(call.other(1, "identity", last(mean, "")))
    if call.is_asked(2):
        nodes.append(call.other(2, "power", shifted.outputs, power=-0.5))
    return nodes


def _mean(call: Call, x: str, axes: tuple[int, ...], suffix: str) -> list[Node]:
    """Steps to the mean over axes, which stay with length 1; images may be among them."""
    reduced = call.step("reduce", x, suffix, kind="mean", axes=axes)
    return [reduced, call.step("unsqueeze", reduced.outputs, f"{suffix}s", axes=axes)]


@converter("InstanceNormalization")
def instance_norm(call: Call) -> list[Node]:
    """One to three spatial axes."""
    axes = tuple(range(2, call.rank()))
    core = call.step("standardize", call.x, "core", axes=axes, eps=call.attr("epsilon", 1e-5))
    return _scaled(call, core, _per_channel(call, 1, "scale"), _per_channel(call, 2, "bias"))


@converter("GroupNormalization", since=18, until=20)
def group_norm_per_group(call: Call) -> list[Node]:
    """Scale and bias per group."""
    groups = call.attr("num_groups")
    repeats = call.length(1) // groups
    call.charge(2 * call.length(1), 8)
    scale, bias = (np.repeat(_per_channel(call, i, what), repeats, 0) for i, what in ((1, "scale"), (2, "bias")))
    return _group_norm(call, groups, scale, bias)


@converter("GroupNormalization", since=21)
def group_norm(call: Call) -> list[Node]:
    """Scale and bias per channel."""
    call.no_attr("stash_type", 1, "1: computed in float32")
    return _group_norm(call, call.attr("num_groups"), _per_channel(call, 1, "scale"), _per_channel(call, 2, "bias"))


def _group_norm(call: Call, groups: int, scale: np.ndarray, bias: np.ndarray) -> list[Node]:
    core = call.step("standardize", call.x, "core", axes=(), groups=groups, eps=call.attr("epsilon", 1e-5))
    return _scaled(call, core, scale, bias)


@converter("RMSNormalization", since=23)
def rms_norm(call: Call) -> list[Node]:
    """Over the last axes, of fixed lengths."""
    axes = tuple(range(call.axis(call.attr("axis", -1)), call.rank()))
    call.no_attr("stash_type", 1, "1: computed in float32")
    count, scale = prod(call.length(axis) for axis in axes), call.required(1, "scale")
    params = {"scale": np.asarray(sqrt(count), np.float32)}
    core = call.step("normalize", call.x, "core", params, axes=axes, eps=count * call.attr("epsilon", 1e-5))
    return [core, *affine(call, core.outputs[0], call.shapes(), scale=scale)]


@converter("LpNormalization")
def lp_norm(call: Call) -> Node:
    """Of order 1 and 2; where all is 0, so is the result."""
    order, axis = call.attr("p", 2), call.axis(call.attr("axis", -1))
    if order not in (1, 2):
        raise call.refusal(f"attribute p = {order}", "1 or 2")
    return call.node("unit_norm", {"axis": axis, "order": order}, inputs=call.x)


@converter("MeanVarianceNormalization", since=9)
def mean_variance_norm(call: Call) -> Node:
    """Over any axes."""
    axes = tuple(sorted(call.axis(axis) for axis in call.attr("axes", (0, 2, 3))))
    return call.node("mvn", {"axes": axes, "eps": 1e-9}, inputs=call.x)


@converter("LRN")
def lrn(call: Call) -> Node:
    """Across channels, of planes."""
    attrs = {"size": call.attr("size"), "alpha": call.attr("alpha", 1e-4), "beta": call.attr("beta", 0.75)}
    return call.node("lrn", {**attrs, "k": call.attr("bias", 1.0), "region": "across"}, inputs=call.x)
