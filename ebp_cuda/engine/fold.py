"""The graph as the "conserving" rules want it: what belongs to one affine map is one layer.

Batch norm and per-channel scales go into the layer before them: the excitatory part of a layer is that of the whole
map from its input to the next non-linearity, and a negative batch norm gain turns inhibition into excitation.
Zero padding goes into the convolution or pool behind it: probability must not be spread onto pixels that do not exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch

from ..graph import Graph, Node
from ..vocabulary import operations
from .signs import non_negative_values

_FOLDABLE = operations("conv", "conv_transpose", "linear")


def fold(graph: Graph) -> Graph:
    """`fold_padding`, then `fold_affine`."""
    return fold_affine(fold_padding(graph))


def fold_padding(graph: Graph) -> Graph:
    """A graph in which every zero padding of planes that a single convolution or pool reads is that layer's own,
    wherever the layer computes the same that way."""
    readers = Counter(value for node in graph.nodes for value in node.inputs)
    positive = non_negative_values(graph)
    pads = {node.outputs[0]: node for node in graph.nodes if _is_zero_padding(node) and readers[node.outputs[0]] == 1}
    merged = {
        node.inputs[0]
        for node in graph.nodes
        if node.inputs and node.inputs[0] in pads and _takes(node, pads[node.inputs[0]], positive)
    }
    merged -= set(graph.outputs)
    nodes = []
    for node in graph.nodes:
        if node.outputs[0] not in merged:
            nodes.append(_padded(node, pads[node.inputs[0]]) if node.inputs and node.inputs[0] in merged else node)
    renamed = {value: pads[value].inputs[0] for value in merged}
    return Graph(nodes, graph.inputs, graph.outputs, _renamed_names(graph.names, renamed), graph.meta)


def _is_zero_padding(node: Node) -> bool:
    if node.op != "pad" or float(node.attrs.get("value", 0.0)) != 0:
        return False
    pads = node.attrs["pads"]
    return all(pair == (0, 0) for pair in map(tuple, pads[:2])) and all(n >= 0 for pair in pads for n in pair)


def _takes(node: Node, pad: Node, positive: frozenset[str]) -> bool:
    """Whether `node` computes the same with the padding as its own."""
    if node.op == "conv":
        return True
    if node.op not in ("max_pool", "avg_pool") or node.attrs["kernel"] is None or node.attrs.get("ceil_mode"):
        return False
    attrs = _padded(node, pad).attrs
    sides = zip(attrs["padding"], attrs["padding_end"], attrs["kernel"], strict=True)
    if node.op == "max_pool":  # a zero never beats what is not negative, and every window holds some of that
        return pad.inputs[0] in positive and all(max(before, after) < kernel for before, after, kernel in sides)
    return not any(node.attrs["padding"]) and all(before == after for before, after, _ in sides)


def _padded(node: Node, pad: Node) -> Node:
    attrs, pads = dict(node.attrs), pad.attrs["pads"][2:]
    for name, side in (("padding", 0), ("padding_end", 1)):
        attrs[name] = tuple(own + pair[side] for own, pair in zip(node.attrs[name], pads, strict=True))
    if node.op == "avg_pool":
        attrs["count_include_pad"] = True
    return replace(node, inputs=pad.inputs, attrs=attrs)


def fold_affine(graph: Graph) -> Graph:
    """A graph in which every batch_norm or per-channel affine that alone reads a contraction is part of it.

    The folded layer writes the value that the last folded one wrote; a name that stood for a value in between
    then stands for that one. The given graph and its tensors stay as they are.
    """
    readers = Counter(value for node in graph.nodes for value in node.inputs)
    ranks = _ranks(graph)
    nodes: list[Node] = []
    at: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        source = at.get(node.inputs[0]) if node.inputs else None
        alone = source is not None and readers[node.inputs[0]] == 1 and node.inputs[0] not in graph.outputs
        folded = _folded(nodes[source], node) if source is not None and alone else None
        if folded is not None and source is not None:
            renamed[node.inputs[0]] = node.outputs[0]
            nodes[source] = folded
            at[node.outputs[0]] = source
            continue
        if node.op in _FOLDABLE and (node.op != "linear" or ranks[node.outputs[0]] == 2):
            at[node.outputs[0]] = len(nodes)
        nodes.append(node)
    return Graph(nodes, graph.inputs, graph.outputs, _renamed_names(graph.names, renamed), graph.meta)


def _ranks(graph: Graph) -> dict[str, int]:
    """Number of axes of every value; a linear layer's features are its channels only where there are two."""
    ranks = {name: len(shape) for name, shape in graph.inputs.items()}
    for node in graph.nodes:
        rank = ranks[node.inputs[0]] if node.inputs else 0
        if node.op == "flatten":
            rank = int(node.attrs["axis"]) + 1
        elif node.op == "reshape":
            rank = len(node.attrs["shape"])
        elif node.op in ("squeeze", "reduce") or (node.op == "mean" and not node.attrs["keepdims"]):
            rank -= len(node.attrs["axes"])
        elif node.op == "unsqueeze":
            rank += len(node.attrs["axes"])
        ranks.update(dict.fromkeys(node.outputs, rank))
    return ranks


def _renamed_names(names: Mapping[str, tuple[str, ...]], renamed: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    def last(value: str) -> str:
        while value in renamed:
            value = renamed[value]
        return value

    moved = {name: tuple(dict.fromkeys(last(value) for value in values)) for name, values in names.items()}
    for value in renamed:
        moved.setdefault(value, (last(value),))
    return moved


def _folded(layer: Node, node: Node) -> Node | None:
    """`layer` with `node`'s gain and offset in its weight and bias, or None where they do not fold."""
    if node.op == "batch_norm":
        gain = torch.rsqrt(node.params["var"] + node.attrs["eps"])
        if "weight" in node.params:
            gain = gain * node.params["weight"]
        offset = -node.params["mean"] * gain
        if "bias" in node.params:
            offset = offset + node.params["bias"]
    elif node.op == "affine":
        channels = _channels(layer)
        scale, shift = (_per_channel(node.params.get(name), layer, channels) for name in ("scale", "shift"))
        if ("scale" in node.params and scale is None) or ("shift" in node.params and shift is None):
            return None
        weight = layer.params["weight"]
        gain = weight.new_ones(channels) if scale is None else scale
        offset = weight.new_zeros(channels) if shift is None else shift
    else:
        return None
    params = {"weight": _scaled(layer, gain), "bias": offset}
    if "bias" in layer.params:
        params["bias"] = layer.params["bias"] * gain + offset
    return replace(layer, outputs=node.outputs, params=params)


def _channels(layer: Node) -> int:
    weight = layer.params["weight"]
    if layer.op == "conv_transpose":
        return int(weight.shape[1]) * int(layer.attrs["groups"])
    return int(weight.shape[0])


def _per_channel(param: torch.Tensor | None, layer: Node, channels: int) -> torch.Tensor | None:
    """A broadcastable parameter as [C], or None where it varies along anything but the channel axis."""
    if param is None:
        return None
    if param.numel() == 1:
        return param.reshape(1).expand(channels)
    rank = 1 if layer.op == "linear" else layer.params["weight"].dim() - 1
    shape = list(param.shape)
    if param.numel() != channels or len(shape) < rank or shape[len(shape) - rank] != channels:
        return None
    return param.reshape(channels)


def _scaled(layer: Node, gain: torch.Tensor) -> torch.Tensor:
    weight = layer.params["weight"]
    if layer.op != "conv_transpose":
        return weight * gain.reshape(-1, *([1] * (weight.dim() - 1)))
    groups = int(layer.attrs["groups"])
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    gains = gain.reshape(groups, 1, -1, *([1] * (weight.dim() - 2)))
    return (per_group * gains).reshape(weight.shape)
