"""Rounding to the formats of tensor cores, as the CUDA kernels do it."""

from __future__ import annotations

import torch

from . import library  # noqa: F401  the op must be there

PRECISIONS = ("fp32", "tf32", "bf16")
"""What the factors of a contraction's products may be rounded to; sums are float32."""

SPLIT = "tf32x3"
"""How tensor cores compute a forward: both factors as two tf32 summands, and three of their four products."""


def rounded(x: torch.Tensor, precision: str) -> torch.Tensor:
    """float32 `x` with every element rounded to `precision`: "fp32" (as it is), "tf32" or "bf16"; still float32.

    To the nearest; of two equally near ones tf32 takes the larger in size (cvt.rna), bf16 the even one (cvt.rn). With
    "tf32" or "bf16" an activation must be rounded so before it multiplies the result of a sweep, because its normalizer
    was computed of rounded activations; otherwise probability leaks.
    """
    if precision == "fp32":
        return x
    if not x.is_cpu:
        return torch.ops.ebp_cuda.rounded.default(x, precision)
    return x.to(torch.bfloat16).to(x.dtype) if precision == "bf16" else _tf32(x)


def split(r: torch.Tensor, precision: str) -> torch.Tensor:
    """float32 `r` as the sum of two numbers of that precision, as which the tensor cores multiply it.

    The sum itself is a float32 without rounding, so one product with it here equals the two products there.
    """
    if precision == "fp32":
        return r
    high = rounded(r, precision)
    return high + rounded(r - high, precision)


def _tf32(x: torch.Tensor) -> torch.Tensor:
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


_CPU = torch.library.Library("ebp_cuda", "IMPL", "CPU")
_CPU.impl("rounded", rounded)
