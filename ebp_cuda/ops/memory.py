"""What of a device's memory decides how much a pass carries at once."""

from __future__ import annotations

import torch

BLOCK = 16 * 2**20
"""Bytes of the largest value that a sweep on a CPU carries. With more, glibc gives memory back to the kernel during a
call and gets every page of it anew (values from 32 MiB on one by one, smaller ones where 64 MiB in all are free)."""


def carried_in_blocks(device: torch.device) -> bool:
    """Whether a sweep on the device should carry no more than a block at once; elsewhere more does no harm."""
    return device.type == "cpu"


def columns(size: int) -> int:
    """How many columns of so many bytes are one block."""
    return max(1, BLOCK // size)
