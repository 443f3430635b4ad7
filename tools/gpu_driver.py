"""Builds build/gpu_driver from gpu_driver.cu and the kernels: by nvcc, or by g++ against the emulator.

python tools/gpu_driver.py [--arch 90 | --emulate]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check_cuda import nvcc

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "gpu_driver"
SOURCE = ROOT / "tools" / "gpu_driver.cu"
NOT_NEEDED = ("bindings", "emu_bindings", "emu_mistakes", "emu_specimens")


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{done.stdout}{done.stderr}")


def by_nvcc(arch: str) -> None:
    """One object per source, side by side."""
    compiler = nvcc()
    if compiler is None:
        sys.exit("no nvcc in CUDA_HOME, PATH or /usr/local/cuda")
    sources = [SOURCE, *sorted((ROOT / "csrc/cuda").glob("*.cu"))]
    objects = [TARGET.parent / f"driver_{source.stem}.o" for source in sources]
    flags = [str(compiler), "-std=c++17", "-O3", f"-arch=sm_{arch}", f"-I{ROOT}/csrc", "-lineinfo"]
    commands = [[*flags, "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, commands))
    run([*flags, *map(str, objects), "-o", str(TARGET)])


def by_emulator() -> None:
    """Against csrc/emu, whose objects lie in build/emu."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support import emu_build

    emu_build.FOLDER.mkdir(parents=True, exist_ok=True)
    commands = emu_build.compile_commands()
    wanted = [s for s in commands if not s.replace("/", "_").startswith(NOT_NEEDED)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: emu_build.compile_one(source, commands[source]), wanted))
    flags = ["g++", "-std=c++17", "-O1", "-DEBP_EMULATOR", f"-I{ROOT}/csrc", f"-I{ROOT}/csrc/emu"]
    driver = TARGET.parent / "driver_gpu_driver.o"
    run([*flags, "-x", "c++", "-c", str(SOURCE), "-o", str(driver)])
    run(["g++", str(driver), *map(str, objects), "-o", str(TARGET)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the torch-free driver of the launchers.")
    parser.add_argument("--arch", default="90", help="compute capability (default 90)")
    parser.add_argument("--emulate", action="store_true", help="for the CPU")
    args = parser.parse_args()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    by_emulator() if args.emulate else by_nvcc(args.arch)
    print(f"built {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
