"""Three spatial axes by operations on planes, so that every device and precision that has planes has volumes.

A convolution over depth is a sum over its taps along depth: each tap is a plane convolution of some of the slices,
which then count as images. Pooling is separable: first within every slice, then along depth; the first winner of the
second stage lies in the slice of the first winner of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Ints = Sequence[int]


@dataclass(frozen=True)
class Depth:
    """Geometry of a convolution along its first spatial axis."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def out_size(self) -> int:
        return (self.size + self.before + self.after - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def taps(self) -> Iterator[tuple[int, slice]]:
        """(tap, the slices of the padded input that it reads), one per tap."""
        for tap in range(self.kernel):
            start = tap * self.dilation
            yield tap, slice(start, start + self.stride * (self.out_size - 1) + 1, self.stride)


def depth_of(size: int, weight: torch.Tensor, stride: Ints, pads: Ints, dilation: Ints) -> Depth:
    """pads: the padding before each axis, then the padding behind each."""
    return Depth(size, weight.shape[2], stride[0], pads[0], pads[3], dilation[0])


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    depth: Depth,
    on_planes: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """x [N, I, D, H, W], weight [O, I/groups, d, h, w] -> [N, O, D', H', W'].

    on_planes: convolves [M, I, H, W] with [O, I/groups, h, w], strides, padding and dilation of the last two axes.
    """
    x = F.pad(x, (0, 0, 0, 0, depth.before, depth.after))
    total: torch.Tensor | None = None
    for tap, slices in depth.taps():
        part = on_planes(_as_images(x[:, :, slices]), weight[:, :, tap].contiguous())
        total = part if total is None else total.add_(part)
    assert total is not None
    return _as_volumes(total, x.shape[0])


def transposed(
    r: torch.Tensor,
    weight: torch.Tensor,
    depth: Depth,
    on_planes: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The adjoint of `convolve`: r [N, O, D', H', W'] -> [N, I, D, H, W].

    on_planes: carries [M, O, H', W'] back to [M, I, H, W].
    """
    images = _as_images(r)
    whole: torch.Tensor | None = None
    for tap, slices in depth.taps():
        part = _as_volumes(on_planes(images, weight[:, :, tap].contiguous()), r.shape[0])
        if whole is None:
            padded = depth.before + depth.size + depth.after
            whole = part.new_zeros(*part.shape[:2], padded, *part.shape[3:])
        whole[:, :, slices] += part
    assert whole is not None
    return whole[:, :, depth.before : depth.before + depth.size]


def _as_images(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])


def _as_volumes(y: torch.Tensor, count: int) -> torch.Tensor:
    return y.reshape(count, -1, *y.shape[1:]).transpose(1, 2)


def within_slices(x: torch.Tensor) -> torch.Tensor:
    """[N, C, D, H, W] -> [N, C * D, H, W]: every slice a plane."""
    return x.flatten(1, 2)


def along_depth(y: torch.Tensor, depth: int) -> torch.Tensor:
    """[N, C * D, H, W] -> [N, C, D, H * W]: depth as the first axis of a plane."""
    return y.reshape(y.shape[0], -1, depth, y.shape[2] * y.shape[3])
