"""Faithfulness of maps without annotations: does the score follow what a map marks, and the map what the network knows?

Deletion and insertion (Petsiuk et al., RISE, 2018): the area under the class's probability while pixels go, or come, in
the order of the map. Randomisation (Adebayo et al., 2018): rank correlation of a map with that of a network whose
weights are made random from the top down. Methods that multiply by positive weights change little there (Sixt et al.,
2019); Excitation Backprop is one of them, and is measured like the others. Rank correlation between layers: whether a
method says the same at another depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..extras import require
from ..graph import Graph
from ..images.maps import resize_maps
from ..net import Net

STEPS = 32
_BLUR = 0.05
"""Deviation of the Gaussian that insertion starts from, as a part of the input's longer side."""

Score = Callable[[torch.Tensor], torch.Tensor]
"""Inputs [N, C, H, W] -> probabilities [N, classes]."""


def probabilities(net: Net, top: str | None = None, device: str = "cpu") -> Score:
    """Softmax over the classes of the network's scores; of a spatial top its best place counts."""
    name = top or net.default_top()

    def score(x: torch.Tensor) -> torch.Tensor:
        values = net.forward(x, [name], device=device)[name].float()
        return (values if values.dim() == 2 else values.flatten(2).amax(2)).softmax(1).cpu()

    return score


def pixel_order(attribution: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Indices of the input's pixels, int64 [H*W], the most important first, of a map [h, w] brought to `size`.

    Equal values come in a fixed random order, so that a flat map is not read from its corner.
    """
    values = resize_maps(attribution.float(), size).flatten()
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    return shuffled[values[shuffled].argsort(descending=True, stable=True)]


def curves(
    x: torch.Tensor, attribution: torch.Tensor, target: int, score: Score, steps: int = STEPS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the target, [steps + 1] each, while pixels are deleted, and while they are inserted.

    x: one input [1, C, H, W]. Deleted pixels become the mean color; insertion starts from the blurred input.
    """
    order = pixel_order(attribution, (x.shape[2], x.shape[3]))
    filters = require("scipy.ndimage", "eval", "insertion")
    sigma = _BLUR * max(x.shape[2:])
    blurred = torch.from_numpy(filters.gaussian_filter(x.numpy(), (0, 0, sigma, sigma)))
    empty = x.mean((2, 3), keepdim=True).expand_as(x)
    pair = []
    for start, end in ((x, empty), (blurred, x)):
        stages = torch.stack(
            [_mixed(start[0], end[0], order[: round(len(order) * k / steps)]) for k in range(steps + 1)]
        )
        pair.append(score(stages)[:, target].double().numpy())
    return pair[0], pair[1]


def _mixed(start: torch.Tensor, end: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    mixed = start.flatten(1).clone()
    mixed[:, pixels] = end.flatten(1)[:, pixels]
    return mixed.reshape(start.shape)


def area(curve: NDArray[np.float64]) -> float:
    """Area under a curve over 0..1, by trapezoids."""
    return float((curve[1:] + curve[:-1]).mean() / 2)


def weighted_layers(graph: Graph, top: str) -> list[int]:
    """Nodes with weights that the top depends on, from the top down."""
    return [
        index
        for index in sorted(graph.ancestors([top]), reverse=True)
        if "weight" in graph.nodes[index].params and graph.nodes[index].params["weight"].dim() >= 2
    ]


def randomised(net: Net, nodes: Sequence[int], seed: int = 0) -> Net:
    """The network with the weights of the given nodes drawn anew: normal, of the old mean and deviation."""
    graph = net.graph
    redrawn = list(graph.nodes)
    for index in nodes:
        weight = graph.nodes[index].params["weight"]
        source = torch.Generator().manual_seed(seed * 100_003 + index)
        fresh = torch.randn(weight.shape, generator=source) * weight.float().std() + weight.float().mean()
        params = {**graph.nodes[index].params, "weight": fresh.to(weight.dtype)}
        redrawn[index] = replace(graph.nodes[index], params=params)
    return Net(Graph(redrawn, graph.inputs, graph.outputs, graph.names, graph.meta))


def cascade(net: Net, top: str, stages: int, seed: int = 0) -> list[tuple[str, Net]]:
    """(the lowest layer that is random, network) for `stages` steps from the classifier alone to every layer.

    Raises InputError where there are fewer layers than stages.
    """
    layers = weighted_layers(net.graph, top)
    if not 1 <= stages <= len(layers):
        raise InputError(f"--stages {stages}: the network has {len(layers)} layers with weights")
    ends = np.unique(np.linspace(1, len(layers), stages).round().astype(int))
    return [(net.graph.nodes[layers[end - 1]].name, randomised(net, layers[:end], seed)) for end in ends]


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's rank correlation of two maps [h, w], the smaller one resized; NaN where a map is flat."""
    stats = require("scipy.stats", "eval", "rank correlation")
    size = max(tuple(one.shape), tuple(other.shape))
    flat = [resize_maps(m.float(), (size[0], size[1])).flatten().numpy() for m in (one, other)]
    if any(np.ptp(values) == 0 for values in flat):
        return float("nan")
    return float(stats.spearmanr(*flat).statistic)


def layers_by_size(net: Net, top: str) -> list[str]:
    """One plane of every size below the top, the last of its size, from the input up."""
    graph, shapes = net.graph, net.shapes()
    values: dict[tuple[int, ...], str] = {}
    for index in sorted(graph.ancestors([top])):
        value = graph.nodes[index].outputs[0]
        shape = shapes.get(value, ())
        if len(shape) == 4 and min(shape[2:]) > 1 and value != top:
            values[tuple(shape[2:])] = value
    return list(values.values())
