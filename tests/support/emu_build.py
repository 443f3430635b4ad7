"""Builds the emulator that runs the CUDA kernels on the CPU, once per content of its sources, and imports it.

The module's launchers take numpy arrays; importing it also registers torch.ops.ebp_emulated, the ops of ebp_cuda with
their CUDA side (csrc/bindings/cuda_*.cpp) on CPU tensors.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch

from support.paths import ROOT

SOURCES = ROOT / "csrc"
FOLDER = ROOT / "build/emu"
COMMON = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-ffp-contract=off", "-DEBP_EMULATOR"]
# The two sanitizers' calls are answered by csrc/emu/hooks.cpp.
KERNEL = ["-x", "c++", "-O1", "-g0", "-fsanitize=thread,undefined", "-fno-sanitize=vptr", f"-I{SOURCES / 'emu'}"]
HOST = ["-O2", "-U_FORTIFY_SOURCE"]
TORCH = Path(torch.__file__).parent
BINDING = ["-O0", "-fvisibility=hidden", "-isystem", f"{TORCH}/include", "-Debp_cuda=ebp_emulated"]
CPU_SIDE = (
    "build_info.cpp",
    "cpu_ops.cpp",
    "cpu_tile_ops.cpp",
)  # of csrc/bindings; the others are the CUDA side or both sides'


class BuildError(Exception):
    """What the compiler said."""


def compile_commands() -> dict[str, list[str]]:
    """The compiler call, without source and output, for every source by its path below csrc."""
    import pybind11

    cxx = [*os.environ.get("CXX", "g++").split(), *COMMON]
    python = ["-isystem", sysconfig.get_path("include"), "-isystem", pybind11.get_include()]
    bindings = [source for source in SOURCES.glob("bindings/*.cpp") if source.name not in CPU_SIDE]
    commands = {str(source.relative_to(SOURCES)): [*cxx, *BINDING] for source in bindings}
    for source in sorted([*SOURCES.glob("cuda/*.cu"), *SOURCES.glob("emu/*.cu")]):
        commands[str(source.relative_to(SOURCES))] = [*cxx, *KERNEL]
    for source in sorted(SOURCES.glob("emu/*.cpp")):
        binds = source.name == "bindings.cpp"
        extra = [*python, "-fvisibility=hidden", "-O0", "-DEMU_MODULE=ebp_emulator"] if binds else []
        commands[str(source.relative_to(SOURCES))] = [*cxx, *HOST, *extra]
    return commands


def _content(paths: list[Path]) -> str:
    return "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


def _read_by(noted: Path) -> list[Path]:
    """The files of this repository that the compiler noted to have read."""
    names = noted.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return [Path(name) for name in names if name.startswith(str(ROOT))]


def compile_one(source: str, command: list[str]) -> Path:
    """The object file of a source, compiled unless command and all that it reads are as they were."""
    target = FOLDER / (source.replace("/", "_") + ".o")
    noted, record = target.with_suffix(".d"), target.with_suffix(".hash")
    whole = [*command, "-MMD", "-MF", str(noted), "-c", str(SOURCES / source), "-o", str(target)]

    def stamp() -> str:
        return hashlib.sha256((" ".join(whole) + _content(_read_by(noted))).encode()).hexdigest()

    if target.is_file() and noted.is_file() and record.is_file():
        try:
            if record.read_text() == stamp():
                return target
        except FileNotFoundError:
            pass  # a header is gone
    begun = time.time()
    record.unlink(missing_ok=True)
    _run(whole)
    if all(file.stat().st_mtime < begun for file in _read_by(noted)):  # else it was edited meanwhile
        record.write_text(stamp())
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"the emulator does not build:\n{' '.join(command)}\n{done.stderr}")


def build() -> Path:
    """The module's file."""
    commands = compile_commands()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, commands, commands.values()))
    target = FOLDER / f"ebp_emulator{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.is_file() or any(file.stat().st_mtime > target.stat().st_mtime for file in objects):
        partial, libraries = target.with_suffix(".partial"), [f"-L{TORCH}/lib", "-ltorch_cpu", "-ldl"]
        _run([*os.environ.get("CXX", "g++").split(), "-shared", *map(str, objects), *libraries, "-o", str(partial)])
        os.replace(partial, target)  # a running process may hold the old one
    return target


def emulator() -> ModuleType:
    """The module `ebp_emulator` (csrc/emu/bindings.cpp). Skips the test where there is no compiler or no pybind11."""
    pytest.importorskip("pybind11")
    if shutil.which(os.environ.get("CXX", "g++").split()[0]) is None:
        pytest.skip("no C++ compiler")
    module = _module()
    if isinstance(module, BuildError):
        pytest.fail(str(module), pytrace=False)
    return module


@functools.cache
def _module() -> ModuleType | BuildError:
    """Built and imported at most once: what does not build for the first test does not for the others."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            target = build()
        except BuildError as error:
            return error
    spec = importlib.util.spec_from_file_location("ebp_emulator", target)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
