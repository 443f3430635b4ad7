"""Forward convolutions in the full precision of their tensors, on every device.

On CUDA torch's own float32 convolutions round their operands to tf32 unless the process says otherwise
(torch.backends.cudnn.allow_tf32), and that moves a contrastive map by percents. The setting belongs to the caller; here
cuDNN is asked directly: no tf32, and an algorithm that gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..ops.cpu_convolution import convolution_cpu
from .spatial import Spatial

Ints = Sequence[int]

_BENCHMARK, _DETERMINISTIC, _ALLOW_TF32 = False, True, False


def by_cudnn(x: torch.Tensor) -> bool:
    """Whether cuDNN convolves x; never on a CPU."""
    return x.is_cuda and torch.backends.cudnn.is_acceptable(x)


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """x [N, I, *size], weight [O, I/groups, *kernel], bias [O] -> [N, O, *size]; one to three spatial axes."""
    if not by_cudnn(x):
        function = (F.conv1d, convolution_cpu, F.conv3d)[x.dim() - 3]
        return function(x, weight, bias, stride, padding, dilation, groups)
    on = Spatial(x.dim() - 2)
    window = on.settings(padding, 0), on.settings(stride, 1), on.settings(dilation, 1)
    y = torch.ops.aten.cudnn_convolution.default(
        on.plane(x), on.plane(weight), *window, groups, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return on.back(_with_bias(y, bias))


def transposed_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """x [N, I, *size], weight [I, O/groups, *kernel], bias [O] -> [N, O, *size]; one to three spatial axes."""
    if not by_cudnn(x):
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
        return function(x, weight, bias, stride, padding, output_padding, groups, dilation)
    on = Spatial(x.dim() - 2)
    window = (
        *(on.settings(values, 0) for values in (padding, output_padding)),
        *(on.settings(values, 1) for values in (stride, dilation)),
    )
    y = torch.ops.aten.cudnn_convolution_transpose.default(
        on.plane(x), on.plane(weight), *window, groups, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return on.back(_with_bias(y, bias))


def _with_bias(y: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if bias is not None:
        y += bias.reshape(1, -1, *[1] * (y.dim() - 2))
    return y
