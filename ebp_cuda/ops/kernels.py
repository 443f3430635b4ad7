"""Which CUDA kernel a convolution runs on, why on no faster one, and what it launches; asked without a GPU."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..errors import ShapeError
from .formats import memory_format
from .library import LIBRARY
from .operands import check_precision, conv_size, plane, weights
from .rounding import PRECISIONS

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

    Tensors of any device will do ("meta" has no memory): shape, dtype, strides and offset are looked at, not values.
    two_sums: as `ops.conv2d_excitation` computes them. arch: compute capability, 90 for 9.0. Raises ShapeError.
    """
    down, op = in_size is not None, "contraction_kernel"
    source, weight = plane(op, "source", source), weights(op, weight, source, groups)
    check_precision(op, "source", source, precision)
    size = tuple(source.shape[2:] if in_size is None else in_size)
    out = conv_size(op, size, tuple(weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation))
    below, above = weight.shape[1] * groups, weight.shape[0]
    expected = (above, *out) if down else (below, *size)
    if tuple(source.shape[1:]) != expected:
        raise ShapeError(f"{op}: source is {list(source.shape)}, wanted [N, {', '.join(map(str, expected))}]")
    if source.dtype == torch.float64:
        return Kernel("naive", ("simt: float64 was asked for",))
    other = torch.empty_strided((), (), device="meta").expand(
        source.shape[0], *((below, *size) if down else (above, *out))
    )
    other = other.contiguous(memory_format=memory_format(source))
    lower, upper = (other, source) if down else (source, other)
    axes: list[Any] = [
        n for i in (0, 1) for n in (size[i], out[i], weight.shape[2 + i], stride[i], padding[i], dilation[i])
    ]
    bytes_behind = [t.storage_offset() * t.element_size() % 16 for t in (source, weight)]
    numbers: list[Any] = [source.shape[0], below, above, groups]
    for part in (axes, lower.stride(), upper.stride(), weight.stride()):
        numbers.extend(part)
    numbers += [down, two_sums, PRECISIONS.index(precision), arch, *bytes_behind]
    question, answer = (ctypes.c_int64 * len(numbers))(*numbers), (ctypes.c_int64 * 5)()
    name, *reasons = _ask()(question, answer).decode().split("\n")
    rows, columns, splits, blocks, steps = answer
    return Kernel(name, tuple(reasons), Launch((rows, columns), splits, blocks, steps) if blocks else None)


@functools.cache
def _ask() -> Callable[[Any, Any], bytes]:
    function = ctypes.CDLL(str(LIBRARY)).ebp_cuda_contraction_kernel
    function.restype = ctypes.c_char_p
    return function
