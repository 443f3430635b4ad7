"""Forward convolutions in the full precision of their tensors, on every device.

On CUDA torch's own float32 convolutions round their operands to tf32 unless the process says otherwise
(torch.backends.cudnn.allow_tf32), and that moves a contrastive map by percents. The setting belongs to the caller; here
cuDNN is asked directly: no tf32, and an algorithm that gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

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
    """x [N, I, *size], weight [O, I/groups, *kernel], bias [O] -> [N, O, *size]; one or two spatial axes."""
    if not by_cudnn(x):
        return (F.conv1d if x.dim() == 3 else F.conv2d)(x, weight, bias, stride, padding, dilation, groups)
    window = _on_planes(x, padding, 0), _on_planes(x, stride, 1), _on_planes(x, dilation, 1)
    y = torch.ops.aten.cudnn_convolution.default(
        _plane(x), _plane(weight), *window, groups, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return _with_bias(y, bias, x.dim())


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
    """x [N, I, *size], weight [I, O/groups, *kernel], bias [O] -> [N, O, *size]; one or two spatial axes."""
    if not by_cudnn(x):
        function = F.conv_transpose1d if x.dim() == 3 else F.conv_transpose2d
        return function(x, weight, bias, stride, padding, output_padding, groups, dilation)
    window = (
        *(_on_planes(x, values, 0) for values in (padding, output_padding)),
        *(_on_planes(x, values, 1) for values in (stride, dilation)),
    )
    y = torch.ops.aten.cudnn_convolution_transpose.default(
        _plane(x), _plane(weight), *window, groups, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return _with_bias(y, bias, x.dim())


def _plane(t: torch.Tensor) -> torch.Tensor:
    return t.unsqueeze(-1) if t.dim() == 3 else t


def _on_planes(x: torch.Tensor, values: Ints, fill: int) -> list[int]:
    """A setting per spatial axis of x, as one of planes."""
    return [*values, fill] if x.dim() == 3 else list(values)


def _with_bias(y: torch.Tensor, bias: torch.Tensor | None, rank: int) -> torch.Tensor:
    if bias is not None:
        y += bias.reshape(1, -1, 1, 1)
    return y.squeeze(-1) if rank == 3 else y
