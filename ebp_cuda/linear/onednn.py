"""Products on a CPU by oneDNN: convolutions whose weight is laid out once, and matrix products that add into a sum.

ATen lays weights out anew at every call, which for a single image takes a tenth of the time. Here a weight is laid out
at its first use, and the layout lives as long as it does; which sizes it was made for does not show in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .weights import LayoutCache

Ints = Sequence[int]

_lay_out: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
_convolve: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_FOUND = None not in (_lay_out, _convolve) and torch.backends.mkldnn.is_available()
"""The calls of torch.compile's CPU back end. Later versions of torch, or builds without oneDNN, may not have them."""
_laid_out = LayoutCache()


def available() -> bool:
    """Whether this torch has these functions and is to use them."""
    return _FOUND and bool(torch.backends.mkldnn.enabled)


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """torch.conv2d of channels_last x [N, I, H, W] with weight [O, I/groups, kh, kw] and bias [O], all float32."""

    def lay_out() -> torch.Tensor:
        plain = weight.contiguous().to_mkldnn()
        packed: torch.Tensor = _lay_out(plain, padding, stride, dilation, groups, x.shape)
        return packed

    packed = _laid_out.of(weight, lay_out)
    y: torch.Tensor = _convolve.default(x, packed, bias, padding, stride, dilation, groups, "none", [], "")
    return y


def add_product(addend: torch.Tensor | None, r: torch.Tensor, weight: torch.Tensor, *, owned: bool) -> torch.Tensor:
    """addend + W^T r for every pixel: the way down of a 1 x 1 convolution as a matrix product, channels_last.

    Args:
        addend: [N, I, h, w], or None.
        r: [N, O, h, w].
        weight: [O, I].
        owned: whether the sum may be written over the addend.
    """
    in_place = addend is not None and owned and addend.is_contiguous(memory_format=torch.channels_last)
    if addend is not None and in_place:  # otherwise _pixels would be a copy
        _pixels(addend).addmm_(_pixels(r), weight)
        return addend
    flat = _pixels(r) @ weight if addend is None else torch.addmm(_pixels(addend), _pixels(r), weight)
    rows, _, height, width = r.shape
    return flat.view(rows, height, width, -1).permute(0, 3, 1, 2)


def _pixels(t: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] as [N*h*w, C]."""
    return t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])
