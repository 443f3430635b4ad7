"""A slow, obvious float64 oracle of Excitation Backprop on a `Graph`: what the engine is compared with.

One class column at a time (K classes are K copies of the image in the batch), explicit dense matrices, and the
rules of both sets written out as the method and the measurements of the original state them:

"caffe": share = x * L+^T (p / (L+ x)) with 0 where the normaliser is 0 and x as it is, signed or not; pooling by
average shares nothing where the window's sum is not positive; sum shares by x_i / top whatever the coefficients;
LRN, batch norm and affine layers copy p; everything without a rule of its own uses its ordinary gradient.

"conserving": batch norm and affine layers that follow a contraction are folded into its matrix L; with
x = x+ - x- and L = L+ - L- the normaliser is L+ x+ + L- x-; where it is 0 the p of that output is spread evenly
over the inputs in its window, never onto zero padding; every element-wise function copies p; sum shares by positive
parts, evenly where there are none; mul gives p to its first input of the output's shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ebp_cuda.graph import Graph, Node
from oracle.forward import batch_norm_scale, forward, per_channel, softmax
from oracle.matrices import Array, param
from oracle.rules import layer_rule

__all__ = ["attribute", "forward", "layer_rule", "one_hot", "relevance"]

CONTRACTIONS = ("conv", "conv_transpose", "linear")


def one_hot(top: Array, targets: Sequence[int]) -> Array:
    """The seed of one target per image: 1 at the class, over a plane the softmax of the class's positions."""
    p = np.zeros_like(top)
    for n, target in enumerate(targets):
        p[n, target] = softmax(top[n, target].reshape(-1), 0).reshape(top.shape[2:])
    return p


def folded_scale(graph: Graph, node: Node, values: Mapping[str, Array], kept: Sequence[str]) -> Array | None:
    """What the batch norms and affine layers directly behind a contraction multiply its outputs with."""
    value, scale = node.outputs[0], None
    while value not in kept:
        users = [n for n in graph.nodes if value in n.inputs]
        if len(users) != 1 or users[0].op not in ("batch_norm", "affine"):
            break
        y = values[value]
        factor = param(users[0], "scale")
        if users[0].op == "batch_norm":
            factor = per_channel(batch_norm_scale(users[0]), y)
        if factor is not None:
            scale = np.broadcast_to(factor, y.shape)[0] * (1 if scale is None else scale)
        value = users[0].outputs[0]
    return scale


def inside_mask(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array | None:
    """For a convolution that alone reads a zero padding: 1 where its input is not padding."""
    before = graph.nodes[graph.producer[node.inputs[0]]] if node.inputs[0] in graph.producer else None
    readers = [n for n in graph.nodes if node.inputs[0] in n.inputs]
    if node.op != "conv" or before is None or before.op != "pad" or before.attrs.get("value", 0) or len(readers) > 1:
        return None
    return np.pad(np.ones(values[before.inputs[0]].shape[1:]), before.attrs["pads"][1:])


def relevance(
    graph: Graph,
    values: Mapping[str, Array],
    seeds: Mapping[str, Array],
    rules: str = "caffe",
    negated: Sequence[str] = (),
) -> dict[str, Array]:
    """p of every value below the seeds, by value name. `negated`: layers that stand for their negated weights."""
    ps = dict(seeds)
    for node in reversed(graph.nodes):
        if not any(value in ps for value in node.outputs):
            continue
        xs, ys = [values[v] for v in node.inputs], [values[v] for v in node.outputs]
        tops = [ps.get(v, np.zeros_like(values[v])) for v in node.outputs]
        scale = inside = None
        if rules == "conserving" and node.op in CONTRACTIONS:
            scale, inside = folded_scale(graph, node, values, list(seeds)), inside_mask(graph, node, values)
        sign = -1 if node.name in negated else 1
        for value, p in zip(node.inputs, layer_rule(node, xs, ys, tops, rules, scale, inside, sign), strict=True):
            ps[value] = ps[value] + p if value in ps else p
    return ps


def attribute(
    graph: Graph,
    values: Mapping[str, Array],
    top: str,
    seed: Array,
    layer: str,
    contrast: str | None = None,
    rules: str = "caffe",
) -> Array:
    """p of the value `layer`, in full, from `seed` at the value `top`.

    values: every activation, from `forward` (or from another implementation, to break its ties as it did).
    With `contrast` (a value between the two): p there from the weights of the layer that writes `top`, less p there
    from its negated weights, and from that difference alone on down.
    """
    if contrast is None:
        return relevance(graph, values, {top: seed}, rules)[layer]
    classifier = graph.nodes[graph.producer[top]].name
    positive = relevance(graph, values, {top: seed}, rules)[contrast]
    negative = relevance(graph, values, {top: seed}, rules, negated=[classifier])[contrast]
    return relevance(graph, values, {contrast: positive - negative}, rules)[layer]
