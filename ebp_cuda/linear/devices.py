"""Which backend computes on which device."""

from __future__ import annotations

import torch

from .backend import Backend
from .cpu import Cpu
from .cuda import Cuda

CPU, CUDA = Cpu(), Cuda()


def backend_of(device: torch.device) -> Backend:
    """The backend of a device; tensors without memory ("meta") take the way of CUDA through the ops."""
    return CPU if device.type == "cpu" else CUDA
