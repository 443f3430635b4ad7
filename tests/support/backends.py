"""Backends for tests: the way of CUDA on any device, with and without what its kernels do together."""

from __future__ import annotations

from ebp_cuda.linear.cuda import Cuda
from ebp_cuda.linear.part import Part


class Unfused(Cuda):
    """CUDA's backend where no kernel takes a gate, and no forward computes a normalizer."""

    gates = False

    def gives_normalizer(self, part: Part) -> str:
        return "switched off"
