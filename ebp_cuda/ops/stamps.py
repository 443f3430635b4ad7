"""Whether what was made from a tensor is still good."""

from __future__ import annotations

import torch

Stamp = tuple[int, int]
"""Where a tensor's memory lies and how often torch wrote to it: another stamp, another content."""


def stamp_of(tensor: torch.Tensor) -> Stamp:
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:  # a tensor of the inference mode, which counts no writes
        return tensor.data_ptr(), 0
