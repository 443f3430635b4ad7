"""Convolutions by the matrix tiles of a CPU: up with their normaliser beside them, down as summands that wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..graph import Node
from ..ops import tiles
from ..ops.formats import memory_format
from .deferred import Tiled
from .registry import Step
from .relevance import Relevance
from .window import Window

Tensors = Sequence[torch.Tensor]


def with_normalizer(saved: dict[str, Any], y: torch.Tensor, side: torch.Tensor, as_gate: bool) -> Tensors:
    """The outputs of a forward that has computed its normaliser, or the gate y / z, too: what a sweep looks for."""
    if as_gate:
        saved["gate"] = (y, side)
    else:
        saved["normalizer+1"] = side
    return [y]


def forward_on_tiles(
    node: Node,
    params: Mapping[str, torch.Tensor],
    xs: Tensors,
    saved: dict[str, Any],
    as_gate: bool = False,
    relu: bool = False,
) -> Tensors | None:
    """The forward of a convolution, and of a ReLU behind it, saving its normaliser z or the gate y / z; None where
    there are no tiles or they do not suit."""
    weight, x = params["weight"], xs[0]
    if weight.dim() != 4 or not tiles.available():
        return None
    window = Window(node, weight)
    if not tiles.serve(x, weight, *window.geometry):
        return None
    y, side = tiles.excite(x, weight, window.pads, bias=params.get("bias"), relu=relu, as_gate=as_gate)
    return with_normalizer(saved, y, side, as_gate)


def normalizer_on_tiles(node: Node, x: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor | None:
    """z = W x with the packed weight of that name, without packing it; None as above."""
    if node.op != "conv" or weight.dim() != 4 or not tiles.available() or memory_format(x) != torch.channels_last:
        return None
    window = Window(node, weight)
    if not tiles.serve(x, weight, *window.geometry):
        return None
    return tiles.convolve([tiles.Source(x, weight, name.removeprefix("weight"))], window.pads)


def down_on_tiles(
    step: Step,
    rel: Relevance,
    name: str,
    x: torch.Tensor,
    precision: str,
    parted: Callable[[], tuple[torch.Tensor, torch.Tensor | None]],
) -> Relevance | None:
    """x * L^T (p / z) with the packed weight of that name; None where there are no tiles or they do not suit.

    parted: p / z in two factors, for `tiles.Source`.
    """
    if step.node.op != "conv" or step.fused or not x.is_cpu or precision != "fp32" or not tiles.available():
        return None
    weight = step.params["weight"]
    window = Window(step.node, weight)
    if not window.flips:
        return None
    form, pads = name.removeprefix("weight") + "^T", window.flipped_pads
    if not tiles.serve(rel.s, weight, window.stride, pads, window.dilation, window.groups, form):
        return None
    r, gate = parted()
    return Tiled([tiles.Source(r, weight, form, gate)], pads, x)
