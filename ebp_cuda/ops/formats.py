"""How the planes of a tensor are stored: channel by channel, or pixel by pixel with the channels side by side."""

from __future__ import annotations

import torch


def is_channels_last(t: torch.Tensor) -> bool:
    """Whether results made from `t` are channels_last. Planes of 1 x 1 are alike in both formats and count as such."""
    return t.dim() == 4 and t.shape[1] > 1 and t.is_contiguous(memory_format=torch.channels_last)


def is_channel_slice(t: torch.Tensor) -> bool:
    """Whether `t` is a slice of the channels of a channels_last tensor, such as a part of a concat."""
    if t.dim() != 4 or t.shape[1] == 1 or t.stride(1) != 1:
        return False
    _, channels, rows, cols = t.shape
    return rows == cols == 1 or (t.stride(3) >= channels and t.stride(2) == t.stride(3) * cols)


def memory_format(t: torch.Tensor) -> torch.memory_format:
    """The format of results made from `t`."""
    return torch.channels_last if is_channels_last(t) or is_channel_slice(t) else torch.contiguous_format


def conv_format(x: torch.Tensor, weight: torch.Tensor) -> torch.memory_format:
    """The format of a convolution's result: x's, and on a CPU channels_last too where the weight is nothing else."""
    if x.device.type != "cpu":  # meta tensors stand for a GPU's
        return memory_format(x)
    return torch.channels_last if is_channels_last(weight) and not weight.is_contiguous() else memory_format(x)
