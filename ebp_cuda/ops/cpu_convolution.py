"""Convolution on a CPU, with weights that are laid out for it once: by tiles where the processor has them, else by
oneDNN.

ATen lays weights out anew at every call, which for a single image takes a tenth of the time. Here a weight is laid out
at its first use, and the layout lives as long as it does; which sizes it was made for does not show in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from . import tiles
from .formats import memory_format
from .stamps import LaidOut

Ints = Sequence[int]

_lay_out: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
_convolve: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_FOUND = None not in (_lay_out, _convolve) and torch.backends.mkldnn.is_available()
"""What torch.compile's own CPU back end calls; nothing promises it to later versions, or to builds without oneDNN."""
_laid_out = LaidOut()


def convolution_cpu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """torch.conv2d of x [N, I, H, W] with weight [O, I/groups, kh, kw] and bias [O]; no autograd."""
    around = (*padding, *padding)
    if memory_format(x) == torch.channels_last and tiles.serve(x, weight, stride, around, dilation, groups):
        return tiles.convolve([tiles.Source(x, weight)], around, bias=bias)
    if _is_one_pixel(x, weight, groups) and not any(padding):
        return torch.nn.functional.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    if not _fits(x, weight):
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def lay_out() -> torch.Tensor:
        plain = weight.contiguous().to_mkldnn()
        packed: torch.Tensor = _lay_out(plain, padding, stride, dilation, groups, x.shape)
        return packed

    packed = _laid_out.of(weight, lay_out)
    y: torch.Tensor = _convolve.default(x, packed, bias, padding, stride, dilation, groups, "none", [], "")
    return y


def _is_one_pixel(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    """Whether the convolution is a fully connected layer, which needs no other layout of its weights."""
    return x.shape[2:] == weight.shape[2:] == (1, 1) and groups == 1


def _fits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a layout made once can serve: plain float32 tensors, and planes as oneDNN hands them on."""
    return (
        _FOUND
        and type(x) is torch.Tensor
        and type(weight) is torch.Tensor
        and x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and x.is_contiguous(memory_format=torch.channels_last)
        and bool(torch.backends.mkldnn.enabled)
    )
