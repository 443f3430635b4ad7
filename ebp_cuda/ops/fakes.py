"""The ops on tensors without values, for tracing: shape, dtype and memory format of every result.

What the ops mean is said in `ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from . import library  # noqa: F401  the ops must be there
from .formats import conv_format, memory_format


def _plane(like: torch.Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    shape = (*like.shape[:2], *size)
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format(like))


@torch.library.register_fake("ebp_cuda::share")
@torch.library.register_fake("ebp_cuda::gate")
def _fake_pointwise(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(a, memory_format=memory_format(a))


@torch.library.register_fake("ebp_cuda::rounded")
def _fake_rounded(x: torch.Tensor, precision: str) -> torch.Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


@torch.library.register_fake("ebp_cuda::max_winner")
def _fake_max_winner(xs: list[torch.Tensor]) -> torch.Tensor:
    return torch.empty_like(xs[0], dtype=torch.uint8, memory_format=memory_format(xs[0]))


@torch.library.register_fake("ebp_cuda::max_pool2d")
def _fake_max_pool2d(
    x: torch.Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], out_size: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    code = torch.int32 if kernel[0] * kernel[1] > 255 else torch.uint8
    return _plane(x, out_size), _plane(x, out_size, code)


@torch.library.register_fake("ebp_cuda::max_pool2d_route")
def _fake_max_pool2d_route(p: torch.Tensor, winner: torch.Tensor, in_size: list[int], *_: list[int]) -> torch.Tensor:
    return _plane(p, in_size)


@torch.library.register_fake("ebp_cuda::window_sum")
def _fake_window_sum(
    x: torch.Tensor, kernel: list[int], stride: list[int], padding: list[int], out_size: list[int]
) -> torch.Tensor:
    return _plane(x, out_size)


@torch.library.register_fake("ebp_cuda::avg_pool2d")
def _fake_avg_pool2d(
    x: torch.Tensor, kernel: list[int], stride: list[int], padding: list[int], out_size: list[int], whole: bool
) -> torch.Tensor:
    return _plane(x, out_size)


@torch.library.register_fake("ebp_cuda::window_spread")
def _fake_window_spread(r: torch.Tensor, in_size: list[int], *_: list[int]) -> torch.Tensor:
    return _plane(r, in_size)


@torch.library.register_fake("ebp_cuda::lrn")
def _fake_lrn(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


@torch.library.register_fake("ebp_cuda::conv2d_normalizer")
def _fake_normalizer(
    x: torch.Tensor,
    w_plus: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    precision: str = "fp32",
) -> torch.Tensor:
    size = [
        (x.shape[2 + i] + padding[i] + padding[2 + i] - dilation[i] * (w_plus.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    ]
    shape, format_ = (x.shape[0], w_plus.shape[0], *size), conv_format(x, w_plus)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_)


@torch.library.register_fake("ebp_cuda::conv2d_sweep")
def _fake_sweep(
    r: torch.Tensor,
    w_plus: torch.Tensor,
    in_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    gate: torch.Tensor | None = None,
    precision: str = "fp32",
    addend: torch.Tensor | None = None,
) -> torch.Tensor:
    shape, format_ = (r.shape[0], w_plus.shape[1] * groups, *in_size), conv_format(r, w_plus)
    return torch.empty(shape, dtype=r.dtype, device=r.device, memory_format=format_)


@torch.library.register_fake("ebp_cuda::conv2d_excitation")
def _fake_excitation(
    x: torch.Tensor,
    w: torch.Tensor,
    w_plus: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    *_: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    y = _fake_normalizer(x, w, stride, padding, dilation, groups)
    return y, torch.empty_like(y)


@torch.library.register_fake("ebp_cuda::conv2d_forward")
def _fake_forward(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, *geometry: Any) -> torch.Tensor:
    return _fake_normalizer(x, w, *geometry)


@torch.library.register_fake("ebp_cuda::tile_convolution")
def _fake_tile_convolution(
    xs: list[torch.Tensor],
    weights: list[torch.Tensor],
    bias: torch.Tensor | None,
    out_channels: int,
    kernel: list[int],
    padding: list[int],
    out_size: list[int],
    gates: list[torch.Tensor],
    addend: torch.Tensor | None,
) -> torch.Tensor:
    return xs[0].new_empty((xs[0].shape[0], out_channels, *out_size)).contiguous(memory_format=torch.channels_last)


@torch.library.register_fake("ebp_cuda::tile_excitation")
def _fake_tile_excitation(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_plus: torch.Tensor,
    bias: torch.Tensor | None,
    out_channels: int,
    kernel: list[int],
    padding: list[int],
    out_size: list[int],
    *_: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    y = _fake_tile_convolution([x], [weight], bias, out_channels, kernel, padding, out_size, [], None)
    return y, torch.empty_like(y)
