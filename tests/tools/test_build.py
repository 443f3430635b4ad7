"""The build: with no nvcc, what the library calls of torch, what it says of itself, and what the package holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.paths import ROOT

from ebp_cuda import ops
from ebp_cuda.ops.library import LIBRARY

IN_CHECKOUT = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")


def undefined_symbols(library: Path) -> set[str]:
    done = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True)
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_only_the_stable_c_interface_of_torch_is_called() -> None:
    symbols = undefined_symbols(LIBRARY)
    of_torch = {name for name in symbols if re.match(r"(aoti_)?torch_", name)}
    assert "torch_library_impl" in of_torch
    mangled = {name for name in symbols if name.startswith("_Z") and re.search(r"3c10|2at\d|5torch", name)}
    assert not mangled
    assert not {name for name in symbols if re.match(r"_?Py|cuda[A-Z]|cu[A-Z]|aoti_torch_get_current_cuda", name)}


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_nothing_newer_than_the_oldest_supported_torch_is_called() -> None:
    """Shims that torch 2.11 or later brought stand behind a version test in its header; none of them may be used."""
    header = (Path(torch.__file__).parent / "include/torch/csrc/stable/c/shim.h").read_text()
    newer = header.split("TORCH_FEATURE_VERSION >= TORCH_VERSION_2_11_0", 1)[1]
    names = set(re.findall(r"\b((?:aoti_)?torch_\w+)\s*\(", newer))
    assert len(names) > 3
    assert not names & undefined_symbols(LIBRARY)


def test_build_info() -> None:
    info = ops.build_info()
    assert set(info) == {"cuda", "archs", "nvcc", "torch", "cpu_isa"}
    assert info["cuda"] == bool(info["archs"]) == bool(info["nvcc"])
    assert re.match(r"2\.\d+\.\d+", info["torch"])


def built_without_nvcc(folder: Path) -> tuple[Path, str]:
    """A copy of the sources, built where no nvcc can be found; the folder and what the build printed."""
    for name in ("csrc", "setup.py", "pyproject.toml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    shutil.copytree(
        ROOT / "ebp_cuda", folder / "ebp_cuda", ignore=shutil.ignore_patterns("*.so", "include", "__pycache__")
    )
    (folder / "README.md").write_text("")
    environment = {**os.environ, "CUDA_HOME": str(folder / "nowhere")}
    environment.pop("EBP_CUDA_ARCHS", None)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


ON_ITS_OWN = """
import torch
from ebp_cuda import ops
from ebp_cuda.errors import UnsupportedError
assert ops.build_info()["cuda"] is False, ops.build_info()
x = torch.rand(1, 8, 6, 6)
y, winner = ops.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1), (3, 3))
assert torch.equal(y, torch.nn.functional.max_pool2d(x, 2))
try:
    ops.require_device(torch.device("cuda"))
except UnsupportedError as error:
    print(error)
"""


@IN_CHECKOUT
@pytest.mark.slow
def test_without_nvcc_the_build_is_for_the_cpu_and_says_so(tmp_path) -> None:
    folder, printed = built_without_nvcc(tmp_path)
    assert "no nvcc" in printed and "building for the CPU only" in printed
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", ON_ITS_OWN], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no CUDA kernels" in done.stdout and "nvcc" in done.stdout


@IN_CHECKOUT
def test_a_missing_library_says_how_to_build_it(tmp_path) -> None:
    ops = shutil.copytree(ROOT / "ebp_cuda/ops", tmp_path / "ebp_cuda/ops")
    for folder in (ops.parent, ops):
        (folder / "__init__.py").write_text("")
    command = [sys.executable, "-c", "import ebp_cuda.ops.library"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError" in done.stderr and "pip install --no-build-isolation -e ." in done.stderr


@IN_CHECKOUT
def test_a_missing_torch_is_named(tmp_path) -> None:
    environment = {**os.environ, "EBP_TORCH_DIR": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert str(tmp_path / "nowhere") in done.stderr and "pip install torch" in done.stderr
    assert "Traceback" not in done.stderr


@IN_CHECKOUT
def test_check_cuda_reads_what_ptxas_writes(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import check_cuda

    assert f'ARCHS = "{check_cuda.ARCHS}"' in (ROOT / "setup.py").read_text()
    report = """ptxas info    : Compiling entry function '_Z4kernPf' for 'sm_75'
ptxas info    : Function properties for _Z4kernPf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 360 bytes cmem[0]
ptxas info    : Compiling entry function '_Z5otherPf' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers
"""
    first, second = check_cuda.parse(report)
    assert first == check_cuda.Use("_Z4kernPf", "75", registers=40, shared=4096, stack=16, spills=12)
    assert second == check_cuda.Use("_Z5otherPf", "90", registers=12, shared=0, stack=0, spills=0)
    assert "40+4096!12" in check_cuda.table([first])
