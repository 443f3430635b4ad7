"""Geometry of a convolution: from a layer's attributes to planes, the way down as a convolution of its own, volumes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from ..graph import Node
from . import volume
from .spatial import Spatial

Up = Callable[["Window", torch.Tensor, torch.Tensor], torch.Tensor]
"""(window, x [N, I, H, W], weight [O, I/groups, kh, kw]) -> [N, O, h, w]."""
Down = Callable[["Window", torch.Tensor, torch.Tensor, Sequence[int]], torch.Tensor]
"""(window, r [N, O, h, w], weight [O, I/groups, kh, kw], (H, W)) -> [N, I, H, W]."""


class Window:
    """Geometry of a convolution, or of a transposed one, whose single axis is a plane of width 1."""

    def __init__(self, node: Node, weight: torch.Tensor) -> None:
        """Raises UnsupportedError where the weight [O, I/groups, *kernel] has no one to three spatial axes."""
        attrs = node.attrs
        layer = "transposed convolution" if node.op == "conv_transpose" else "convolution"
        self.spatial = Spatial.of(node, layer, weight)
        on_planes = self.spatial.settings
        self.kernel, self.groups = on_planes(weight.shape[2:], 1), int(attrs["groups"])
        self.stride, self.dilation = on_planes(attrs["stride"], 1), on_planes(attrs["dilation"], 1)
        self.before, self.after = on_planes(attrs["padding"], 0), on_planes(attrs["padding_end"], 0)
        self.output_padding = on_planes(attrs.get("output_padding") or (0,) * self.rank, 0)

    @property
    def rank(self) -> int:
        """Number of the layer's spatial axes."""
        return self.spatial.rank

    @property
    def pads(self) -> list[int]:
        """The padding before every axis, then that behind every axis."""
        return [*self.before, *self.after]

    @property
    def geometry(self) -> tuple[list[int], list[int], list[int], int]:
        """Stride, padding, dilation and groups, as the ops take them."""
        return self.stride, self.pads, self.dilation, self.groups

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, on_planes: Up) -> torch.Tensor:
        """L x [N, I, *size] -> [N, O, *size above], by convolutions of planes."""
        if self.rank == 3:
            depth, inner = self._slices(x.shape[2], weight)
            return volume.convolve(x, weight, depth, lambda slices, tap: on_planes(inner, slices, tap))
        plane, back = self.spatial.plane, self.spatial.back
        return back(on_planes(self, plane(x), plane(weight)))

    def transposed(self, r: torch.Tensor, weight: torch.Tensor, size: Sequence[int], on_planes: Down) -> torch.Tensor:
        """L^T r [N, O, *size above] -> [N, I, *size], by transposed convolutions of planes."""
        if self.rank == 3:
            depth, inner = self._slices(size[0], weight)
            return volume.transposed(r, weight, depth, lambda slices, tap: on_planes(inner, slices, tap, size[1:]))
        plane, back = self.spatial.plane, self.spatial.back
        return back(on_planes(self, plane(r), plane(weight), self.spatial.settings(size, 1)))

    def _slices(self, depth: int, weight: torch.Tensor) -> tuple[volume.Depth, Window]:
        """A volume's geometry along depth, and that within its slices."""
        inner = copy.copy(self)
        inner.spatial = Spatial(2)
        for name in ("kernel", "stride", "dilation", "before", "after"):
            setattr(inner, name, getattr(self, name)[1:])
        return volume.depth_of(depth, weight, self.stride, self.pads, self.dilation), inner

    @cached_property
    def no_flip(self) -> str:
        """Why the transposed convolution is no plain one with the flipped kernel; "" where it is."""
        if self.rank != 2:
            return f"{self.rank} spatial axes"
        if self.groups != 1 or self.stride != [1, 1]:
            return f"stride {self.stride}, groups {self.groups}"
        if min(self._flipped_pads()) < 0:
            return f"padding {self.pads} is wider than what the kernel reaches"
        return ""

    @cached_property
    def flipped(self) -> Window:
        """The window of that plain convolution."""
        other = copy.copy(self)
        pads = self._flipped_pads()
        other.before, other.after = pads[:2], pads[2:]
        return other

    def _flipped_pads(self) -> list[int]:
        return [d * (k - 1) - p for p, d, k in zip(self.pads, self.dilation * 2, self.kernel * 2, strict=True)]
