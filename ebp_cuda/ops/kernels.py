"""Which CUDA kernel a convolution runs on, why on no faster one, and what it launches; asked without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import ShapeError
from . import library  # noqa: F401  the op must be there
from .operands import check_precision, conv_size, plane, weights
from .rounding import PRECISIONS, SPLIT

Ints = Sequence[int]


class Launch(NamedTuple):
    """What a tiled kernel launches for a convolution."""

    tile: tuple[int, int]
    """Pixels and channels that a block computes."""
    splits: int
    """Parts of the sums' terms, each with blocks of its own; above 1 a second kernel adds the parts up."""
    blocks: int
    """Blocks that have work."""
    steps: int
    """Steps of 16 terms that all blocks take together."""


class Kernel(NamedTuple):
    """The kernel that a convolution runs on."""

    name: str
    """"mma" (tensor cores), "depthwise", "simt, large tiles" (or "small tiles", "element by element"), or "naive"."""
    reasons: tuple[str, ...]
    """What stands against the others, "kernel: reason"."""
    launch: Launch | None = None
    """None where no tiled kernel runs."""


def contraction_kernel(
    source: torch.Tensor,
    weight: torch.Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    in_size: Ints | None = None,
    two_sums: bool = False,
    precision: str = "fp32",
    arch: int = 90,
) -> Kernel:
    """The kernel of `ops.conv2d_normalizer` (source x), or of `ops.conv2d_sweep` with `in_size` (source r).

    Tensors of any device will do ("meta" has no memory): shape, dtype, strides and offset are read, values are not.

    Args:
        source: x [N, C, H, W], or r [N, O, h, w] with `in_size`; float32 or float64.
        weight: [O, C / groups, kh, kw], of the dtype and device of `source`.
        stride: of rows and columns.
        padding: (top, left, bottom, right).
        dilation: of rows and columns.
        groups: in which the channels are convolved apart.
        in_size: (H, W) below the convolution, for the kernel of the sweep.
        two_sums: for the kernel of `ops.conv2d_excitation`, which sums W x and W+ x at once.
        precision: "fp32", "tf32" or "bf16"; "tf32x3" for the kernel of `ops.conv2d_forward`.
        arch: compute capability of the device, 90 for 9.0.

    Returns:
        The kernel's name, the reasons against the others, and what it launches.

    Raises:
        ShapeError: tensors, geometry or precision do not fit together.
    """
    op = "contraction_kernel"
    source, weight = plane(op, "source", source), weights(op, weight, source, groups)
    forward = in_size is None and not two_sums
    check_precision(op, "source", source, precision, (*PRECISIONS, SPLIT) if forward else PRECISIONS)
    geometry = tuple(stride), tuple(padding), tuple(dilation)
    size = tuple(source.shape[2:] if in_size is None else in_size)
    out = conv_size(op, size, tuple(weight.shape[2:]), *geometry)
    below, above = (weight.shape[1] * groups, *size), (weight.shape[0], *out)
    expected = below if in_size is None else above
    if tuple(source.shape[1:]) != expected:
        raise ShapeError(f"{op}: source is {list(source.shape)}, wanted [N, {', '.join(map(str, expected))}]")
    text, counts = torch.ops.ebp_cuda.contraction_kernel.default(
        source, weight, *geometry, groups, in_size, two_sums, precision, arch
    )
    name, *reasons = text.split("\n")
    launch = Launch((counts[0], counts[1]), *counts[2:]) if counts else None
    return Kernel(name, tuple(reasons), launch)
