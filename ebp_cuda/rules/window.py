"""Geometry of a convolution: from the layer's settings to the ops, up and down."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from .. import ops
from ..graph import Node
from . import volume
from .spatial import Spatial


class Window:
    """Geometry of a (transposed) convolution on planes."""

    def __init__(self, node: Node, weight: torch.Tensor) -> None:
        self.on, attrs = Spatial.of(node, "convolution", weight), node.attrs
        self.kernel, self.groups = self.on.settings(weight.shape[2:], 1), attrs["groups"]
        self.stride, self.dilation = self.on.settings(attrs["stride"], 1), self.on.settings(attrs["dilation"], 1)
        self.pads = self.on.settings(attrs["padding"], 0) + self.on.settings(attrs["padding_end"], 0)

    @property
    def geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return self.stride, self.pads, self.dilation, self.groups

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        if self.on.rank == 3:
            depth, inner = self._slices(x.shape[2], weight)
            return volume.convolve(x, weight, depth, lambda s, w: inner.convolve(s, w, precision))
        return self.on.back(
            ops.conv2d_normalizer(self.on.plane(x), self.on.plane(weight), *self.geometry, precision=precision)
        )

    def transposed(
        self,
        r: torch.Tensor,
        weight: torch.Tensor,
        size: Sequence[int],
        precision: str = "fp32",
        gate: torch.Tensor | None = None,
        addend: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(W^T r + addend) * gate; neither of the two in a volume."""
        if self.on.rank == 3:
            depth, inner = self._slices(size[0], weight)
            return volume.transposed(r, weight, depth, lambda s, w: inner.transposed(s, w, size[1:], precision))
        plane, kernel, in_size = self.on.plane(r), self.on.plane(weight), self.on.settings(size, 1)
        gate, addend = (None if t is None else self.on.plane(t) for t in (gate, addend))
        t = ops.conv2d_sweep(plane, kernel, in_size, *self.geometry, gate=gate, addend=addend, precision=precision)
        return self.on.back(t)

    def _slices(self, depth: int, weight: torch.Tensor) -> tuple[volume.Depth, Window]:
        """A volume's geometry along depth, and that within its slices."""
        inner = copy.copy(self)
        inner.on = Spatial(2)
        inner.kernel, inner.stride, inner.dilation = self.kernel[1:], self.stride[1:], self.dilation[1:]
        inner.pads = [*self.pads[1:3], *self.pads[4:]]
        return volume.depth_of(depth, weight, self.stride, self.pads, self.dilation), inner

    @property
    def flips(self) -> bool:
        """Whether the transposed convolution is a plain one with the flipped kernel, the faster of the two on a CPU."""
        fits = all(p <= d * (k - 1) for p, d, k in zip(self.pads, self.dilation * 2, self.kernel * 2, strict=True))
        return self.stride == [1, 1] and self.groups == 1 and fits and self.on.rank == 2

    @property
    def flipped_pads(self) -> list[int]:
        """The padding of that plain convolution."""
        return [d * (k - 1) - p for p, d, k in zip(self.pads, self.dilation * 2, self.kernel * 2, strict=True)]

    def convolve_flipped(self, r: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
        return ops.conv2d_normalizer(r, flipped, self.stride, self.flipped_pads, self.dilation, 1)
