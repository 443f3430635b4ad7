"""Builds the executor with the project's own host code, and the PTX that it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OWN = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-Wall"]


def run(command: list[str]) -> str:
    """What a command writes to stderr; ends the program where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stderr


def cuda_headers(nvcc: str) -> Path:
    """The folder of cuda_runtime_api.h."""
    top = re.search(r"^#\$ TOP=(.+)$", run([nvcc, "--dryrun", "x.cu"]), re.MULTILINE)
    if top is None:
        raise SystemExit(f"{nvcc} --dryrun does not say where it is installed")
    return Path(top[1]) / "include"


def build(folder: Path, archs: list[str], compiled: Path | None = None) -> tuple[Path, dict[str, list[Path]]]:
    """The executor's library, and by architecture the PTX of every unit.

    compiled: a folder that holds `UNIT.o` (position-independent) and `UNIT.compute_ARCH.ptx` already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nvcc = shutil.which("nvcc") or "nvcc"
    units = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    commands: list[list[str]] = []
    modules: dict[str, list[Path]] = {arch: [] for arch in archs}
    objects: list[Path] = []
    for unit in units:
        for arch in archs:
            target = (compiled or folder) / f"{unit.stem}.compute_{arch}.ptx"
            modules[arch].append(target)
            commands.append([nvcc, "-ptx", f"-arch=compute_{arch}", "-std=c++17", "-O3", "-o", str(target), str(unit)])
        target = (compiled or folder) / f"{unit.stem}.o"
        objects.append(target)
        code = f"-gencode=arch=compute_{archs[0]},code=compute_{archs[0]}"
        flags = ["-c", "-std=c++17", "-O3", "-Xcompiler=-fPIC", code]
        commands.append([nvcc, *flags, "-o", str(target), str(unit)])
    if compiled is not None:
        commands.clear()
    includes = [f"-I{ROOT}/csrc", f"-isystem{cuda_headers(nvcc)}"]
    for source in sorted((HERE / "executor").glob("*.cpp")):
        target = folder / f"executor_{source.stem}.o"
        objects.append(target)
        commands.append(["g++", *OWN, *includes, "-c", str(source), "-o", str(target)])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, commands))
    # A fresh name, so that a second build in one process is not answered by the loader's cache.
    library = folder / f"libexecutor_{os.getpid()}_{time.time_ns()}.so"
    run(["g++", "-shared", "-Wl,--no-undefined", *map(str, objects), "-o", str(library)])
    return library, modules
