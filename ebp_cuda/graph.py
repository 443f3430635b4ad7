"""The network as the engine sees it: a list of nodes in topological order.

Every importer (ONNX, Caffe through ONNX, torch) ends here and nothing above this file knows where a
network came from. Values are in static single assignment form: each value name is written once. What a
Caffe in-place layer overwrites therefore has several values, and `Graph.names` maps the blob to all of them.

The vocabulary of `Node.op`, with attrs (plain Python values) and params (tensors). `kernel`, `stride`,
`padding`, `padding_end` and `dilation` are tuples with one entry per spatial axis; `padding` is the padding
before the first element of an axis and `padding_end` the padding behind the last.

    conv            kernel-shaped params weight [O, I/groups, *k], bias [O]?; stride padding padding_end dilation groups
    conv_transpose  params weight [I, O/groups, *k], bias?; the same attrs, output_padding
    linear          params weight [O, I], bias [O]?; acts on the last axis
    max_pool        kernel (None: the whole plane) stride padding padding_end dilation ceil_mode; a second output, if
                    there is one, is the winner's row-major index in its plane, as a float
    avg_pool        the same, count_include_pad (divisor: window clipped to the padded plane, as Caffe and torch)
    adaptive_max_pool | adaptive_avg_pool   size: outputs per spatial axis, None for as many as there are inputs
    mean            axes keepdims
    reduce          kind ("sum" | "mean" | "asum" | "sumsq") axes coefficient: the axes go
    relu | leaky_relu (slope) | prelu (params weight [C] or [1]) | elu (alpha) | clip (min, max) | abs
    sqrt | sigmoid | tanh | erf | softplus | silu (beta?) | hard_sigmoid (alpha, beta) | hard_swish | gelu (tanh?)
    threshold       threshold: 1 above it, 0 elsewhere
    exp | log       scale? shift?: exp(scale * x + shift), log(scale * x + shift) * factor?
    power           power scale shift: (shift + scale * x) ** power
    softmax         axis
    lrn             size alpha beta k region ("across" | "within"): x / (k + alpha / n * sum x^2) ** beta
    mvn             axes eps: less the mean, over the deviation + eps; eps None: less the mean only
    standardize     axes eps groups?: less the mean, over sqrt(variance + eps); with groups of channels, each for itself
    normalize       axes eps, params scale: x / sqrt(sum x^2 + eps) * scale
    batch_norm      params mean [C], var [C], weight [C]?, bias [C]?; eps
    affine          params scale?, shift? that broadcast against the input: x * scale + shift
    sum | max       two or more inputs; sum has coefficients (tuple of float) or None
    mul             two activations
    concat          axis
    slice           axes starts ends steps          split  axis sizes (several outputs)
    flatten         axis: dims before it stay, the rest become one
    reshape         shape: 0 copies a dim of the input, -1 is inferred
    squeeze         axes of size 1 to drop          unsqueeze  axes of the output to insert
    transpose       perm
    pad             pads: ((before, after), ...) per axis; value
    resize          scale or size or (zoom and shrink, Caffe's Interp) or a second input of the wanted height and width;
                    mode ("nearest" | "linear"), align_corners
    select          axis indices            tile  repeats           expand, crop  a second input gives the shape; crop
                    has axis and offsets from there on
    embed           params weight [rows, D], bias [D]?; the input holds row numbers
    arg_max         axis (None: all but the batch) k gives ("indices" | "values" | "both")
    unpool          a second input holds places in the output's planes; size, or scale and less: n * scale - less
    identity        dropout, cast, and whatever else changes nothing at inference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import InputError, ModelError, nearest_names


@dataclass(frozen=True)
class Node:
    """One operation: reads the values `inputs`, writes the values `outputs`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, torch.Tensor] = field(default_factory=dict)
    source: str = ""
    """Type in the imported model, for messages and summaries: "Convolution", "Conv", "aten.conv2d"."""


@dataclass
class Graph:
    """A network: nodes in topological order, and the names by which people ask for its values."""

    nodes: list[Node]
    inputs: dict[str, tuple[int | None, ...]]
    """Input values and their declared shapes; None where a dim is free (the batch always is)."""
    outputs: tuple[str, ...]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Public name (Caffe blob or layer, ONNX node, torch module path) -> the values it held, first to last.
    An activation asked by that name is the last one; the relevance is that of the first one, because a
    backward sweep overwrites an in-place blob in the opposite order."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the model file says about itself: "origin" (path), "labels" (list of str), "preprocess" (dict)."""

    def __post_init__(self) -> None:
        self.producer: dict[str, int] = {}
        known = set(self.inputs)
        for index, node in enumerate(self.nodes):
            for value in node.inputs:
                if value not in known:
                    raise ModelError(
                        f"{self.origin}: layer '{node.name}' ({node.source or node.op}) reads '{value}', "
                        f"which no earlier layer writes{nearest_names(value, known)}"
                    )
            for value in node.outputs:
                if value in known:
                    raise ModelError(f"{self.origin}: layer '{node.name}' writes '{value}' a second time")
                known.add(value)
                self.producer[value] = index
        for value in self.outputs:
            if value not in known:
                raise ModelError(f"{self.origin}: output '{value}' is written by no layer{nearest_names(value, known)}")

    @property
    def origin(self) -> str:
        """The file or object the graph came from, for messages."""
        return str(self.meta.get("origin", "model"))

    def known_names(self) -> list[str]:
        """Every name that `resolve` takes."""
        return list(dict.fromkeys([*self.names, *self.inputs, *self.producer]))

    def resolve(self, name: str) -> tuple[str, ...]:
        """The values that `name` held, first to last. Raises InputError with the nearest names."""
        if name in self.names:
            return self.names[name]
        if name in self.producer or name in self.inputs:
            return (name,)
        nearest = nearest_names(name, self.known_names())
        raise InputError(f"{self.origin}: no layer or blob '{name}'{nearest} (`ebp-cuda layers` lists all)")

    def ancestors(self, values: Iterable[str]) -> set[int]:
        """Indices of the nodes that the given values depend on, their producers included."""
        found: set[int] = set()
        queue = [self.producer[v] for v in values if v in self.producer]
        while queue:
            index = queue.pop()
            if index not in found:
                found.add(index)
                queue.extend(self.producer[v] for v in self.nodes[index].inputs if v in self.producer)
        return found

    def descendants(self, values: Iterable[str]) -> set[int]:
        """Indices of the nodes that depend on any of the given values."""
        reached = set(values)
        found: set[int] = set()
        for index, node in enumerate(self.nodes):
            if reached.intersection(node.inputs):
                found.add(index)
                reached.update(node.outputs)
        return found
