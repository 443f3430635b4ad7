"""Slow, obvious restatements of the ops, and the numbers that the op tests feed them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch

from ebp_cuda.linear.amx import CPU_ONLY

Tensor = torch.Tensor
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float32, torch.float64]
FLT_MAX = torch.finfo(torch.float32).max


def declared() -> set[str]:
    """Every op of tensors with a face in ebp_cuda.ops. Others: tests/linear/test_tiles.py, ops/test_kernels.py."""
    names = torch._C._dispatch_get_all_op_names()
    ours = {name.removeprefix("ebp_cuda::") for name in names if name.startswith("ebp_cuda::")}
    return ours - CPU_ONLY - {"contraction_kernel"}


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Small multiples of a quarter: sums are exact, and maxima have ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, shape, generator=generator).to(dtype) / 4


def windows(size: Sequence[int], out: Sequence[int], kernel, stride, padding, dilation=(1, 1)) -> Iterator[tuple]:
    """(output row, output column, [(tap, input row, input column) inside the image])."""
    for oh, ow in itertools.product(range(out[0]), range(out[1])):
        inside = []
        for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
            h, w = oh * stride[0] - padding[0] + i * dilation[0], ow * stride[1] - padding[1] + j * dilation[1]
            if 0 <= h < size[0] and 0 <= w < size[1]:
                inside.append((i * kernel[1] + j, h, w))
        yield oh, ow, inside


def slow_max_pool(x: Tensor, out, kernel, stride, padding, dilation) -> tuple[Tensor, Tensor]:
    y = torch.full((*x.shape[:2], *out), -FLT_MAX, dtype=x.dtype)
    none = 255 if kernel[0] * kernel[1] <= 255 else -1
    winner = torch.full(y.shape, none, dtype=torch.int64)
    for oh, ow, inside in windows(x.shape[2:], out, kernel, stride, padding, dilation):
        for position, (tap, h, w) in enumerate(inside):
            wins = torch.tensor(True) if position == 0 else x[:, :, h, w] > y[:, :, oh, ow]
            y[:, :, oh, ow] = torch.where(wins, x[:, :, h, w], y[:, :, oh, ow])
            winner[:, :, oh, ow] = torch.where(wins, tap, winner[:, :, oh, ow])
    return y, winner


def slow_route(p: Tensor, winner: Tensor, size, kernel, stride, padding, dilation) -> Tensor:
    below = torch.zeros(*p.shape[:2], *size, dtype=p.dtype)
    columns = p.shape[0] // winner.shape[0]
    winner = winner.repeat_interleave(columns, 0)
    for oh, ow, inside in windows(size, p.shape[2:], kernel, stride, padding, dilation):
        for tap, h, w in inside:
            below[:, :, h, w] += torch.where(winner[:, :, oh, ow] == tap, p[:, :, oh, ow], 0.0)
    return below


def slow_window_sum(x: Tensor, out, kernel, stride, padding) -> Tensor:
    y = torch.zeros(*x.shape[:2], *out, dtype=x.dtype)
    for oh, ow, inside in windows(x.shape[2:], out, kernel, stride, padding):
        for _, h, w in inside:
            y[:, :, oh, ow] += x[:, :, h, w]
    return y


def slow_window_spread(r: Tensor, size, kernel, stride, padding) -> Tensor:
    below = torch.zeros(*r.shape[:2], *size, dtype=r.dtype)
    for oh, ow, inside in windows(size, r.shape[2:], kernel, stride, padding):
        for _, h, w in inside:
            below[:, :, h, w] += r[:, :, oh, ow]
    return below


def out_sizes(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> set[int]:
    """Floor, ceil, and one more than either, which leaves the last window empty."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    return {room // stride + 1, -(-room // stride) + 1, -(-room // stride) + 2} if room >= 0 else set()


def lies_as(t: Tensor, memory_format: torch.memory_format, channels: int) -> bool:
    return channels == 1 or t.is_contiguous(memory_format=memory_format)


def place(t: Tensor, dtype: torch.dtype, memory_format: torch.memory_format, device: str) -> Tensor:
    return t.to(device=device, dtype=dtype).contiguous(memory_format=memory_format)


def slow_convolution(weight: Tensor, ins: int, size, stride, padding, dilation, groups) -> Tensor:
    """The convolution as a dense matrix [outputs, inputs]."""
    kernel = weight.shape[2:]
    out = [(size[a] + padding[a] + padding[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    dense = torch.zeros(weight.shape[0], *out, ins, *size, dtype=weight.dtype)
    for oh, ow, inside in windows(size, out, kernel, stride, padding[:2], dilation):
        for tap, h, w in inside:
            for o, c in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
                channel = o // (weight.shape[0] // groups) * weight.shape[1] + c
                dense[o, oh, ow, channel, h, w] = weight[o, c].flatten()[tap]
    return dense.flatten(3).flatten(0, 2)
