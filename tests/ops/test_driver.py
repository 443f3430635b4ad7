"""A driver older than the CUDA runtime of the build is named, with both versions, by require_device and by doctor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.paths import ROOT

from ebp_cuda import ops
from ebp_cuda.cli import doctor
from ebp_cuda.errors import UnsupportedError
from ebp_cuda.ops import driver, operands

BUILT = {**ops.build_info(), "cuda": True, "nvcc": "13.0"}


@pytest.fixture
def an_older_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "build_info", lambda: BUILT)
    monkeypatch.setattr(driver, "driver_version", lambda: (12, 4))
    monkeypatch.setattr(operands, "_HAS_CUDA", True)


@pytest.mark.parametrize(
    ("runtime", "installed", "refused"),
    [
        ("13.0", (12, 9), True),
        ("13.2", (13, 0), False),
        ("12.8", (13, 1), False),
        ("12.8", (12, 4), False),
        ("12.8", (11, 8), True),
        ("13.0", None, False),
        ("", (12, 4), False),
    ],
)
def test_major_versions_decide(runtime, installed, refused, monkeypatch) -> None:
    monkeypatch.setattr(driver, "build_info", lambda: {**BUILT, "nvcc": runtime})
    monkeypatch.setattr(driver, "driver_version", lambda: installed)
    assert (driver.driver_refuses() is not None) == refused


def test_require_device_names_both_versions(an_older_driver) -> None:
    with pytest.raises(UnsupportedError, match=r"device='cuda': .*runtime 13\.0.*CUDA 12\.4: update the driver \(580"):
        ops.require_device(torch.device("cuda"))


def test_doctor_reports_it(an_older_driver) -> None:
    finding = next(f for f in doctor.findings() if f.what == "NVIDIA driver")
    assert not finding.ok and "13.0" in finding.value and "12.4" in finding.value


WITH_A_FAKE_DRIVER = """
import torch
from ebp_cuda import ops
from ebp_cuda.cli import doctor
from ebp_cuda.ops import driver, operands

built = {**ops.build_info(), "cuda": True, "nvcc": "13.0"}
driver.build_info, operands._HAS_CUDA = lambda: built, True
print(driver.driver_version())
try:
    ops.require_device(torch.device("cuda"))
except Exception as error:
    print(error)
print(next(f for f in doctor.findings() if f.what == "NVIDIA driver").value)
"""


@pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ on Linux")
def test_the_driver_is_asked(tmp_path: Path) -> None:
    """The fake one of the PTX executor, in the driver's place and under its name, in a process of its own."""
    source = ROOT / "tests/ptx/executor/driver.cpp"
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "libcuda.so.1")], check=True)

    def said(version: str) -> list[str]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "EBP_FAKE_DRIVER": version}
        command = [sys.executable, "-c", WITH_A_FAKE_DRIVER]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    version, refusal, report = said("12040")
    assert version == "(12, 4)"
    both = "CUDA runtime 13.0, and the installed NVIDIA driver runs no more than CUDA 12.4: update the driver (580"
    assert both in refusal and both in report
    version, refusal, report = said("13010")
    assert version == "(13, 1)" and "driver" not in refusal and "update" not in report
