"""Rounding to the formats of tensor cores, as the CUDA kernels do it."""

from __future__ import annotations

import torch


def rounded(x: torch.Tensor, precision: str) -> torch.Tensor:
    """float32 `x` with every element rounded to `precision`: "fp32" (as it is), "tf32" or "bf16"; still float32.

    To the nearest; of two equally near ones tf32 takes the larger in size (cvt.rna), bf16 the even one (cvt.rn). With
    "tf32" or "bf16" an activation must be rounded so before it multiplies what a sweep brings down, because its
    normaliser was made of rounded activations; otherwise probability leaks.
    """
    if precision == "tf32":
        return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return x.to(torch.bfloat16).to(x.dtype) if precision == "bf16" else x
