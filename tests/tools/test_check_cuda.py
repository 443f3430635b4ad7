"""The register budget of tools/check_cuda.py; what it reads of ptxas is tested with the build."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT


@pytest.fixture
def check_cuda(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import check_cuda

    monkeypatch.setattr(check_cuda, "readable", lambda names: {name: name for name in names})
    return check_cuda


def test_every_budget_is_of_a_kernel_that_exists(check_cuda):
    sources = "".join(path.read_text() for path in (ROOT / "csrc/cuda").glob("*.cu*"))
    kernels = set(re.findall(r"\b(\w+_kernel)\(", sources))
    assert {start.split("<")[0] for start in check_cuda.BUDGET if start is not None} <= kernels
    tiles = set(re.findall(r"SimtTile<[\d, ]+>", sources))
    assert {start.split("<", 1)[1] for start in check_cuda.BUDGET if start is not None and "<" in start} <= tiles


def test_who_is_over_budget(check_cuda):
    def use(kernel, registers, stack=0):
        return check_cuda.Use(kernel, "90", registers, shared=0, stack=stack, spills=0)

    small = "contraction_simt_kernel<SimtTile<64, 64, 4, 4>, 1, 0>"
    within = [use("contraction_mma_kernel<Tf32>", 168), use(small, 128), use("gate_kernel<float>", 80)]
    assert check_cuda.over_budget(within) == []
    over = [use("contraction_mma_kernel<Tf32>", 169), use(small, 129), use("gate_kernel<float>", 81), use("lrn", 20, 8)]
    lines = check_cuda.over_budget(over)
    assert len(lines) == 4 and lines[1] == f"{small} on sm_90: 129 registers of 128, 0 bytes of stack of 0"
