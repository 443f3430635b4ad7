"""Compiles every CUDA source for every architecture and prints what each kernel takes: registers, memory, spills.

    python tools/check_cuda.py [--archs "75 80 90"]

Exit code 1 where a kernel spills registers to memory, takes more than its budget or does not compile, 2 where there is
no nvcc. No GPU is needed. Dynamic shared memory is no part of ptxas' report: launchers assert its size as they compile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "csrc" / "cuda"
ARCHS = "75 80 86 89 90 100 120"
# Registers of a thread, by the kernel's name; `None` for all others. A processor has 65536: 168 leave room for three
# blocks of 128 threads, 128 for two of 256, 80 for three of 256.
BUDGET = {
    "contraction_simt_kernel<SimtTile<64, 64, 4, 4>": 128,
    "contraction_simt_kernel": 168,
    "contraction_mma_kernel": 168,
    None: 80,
}


@dataclass(frozen=True)
class Use:
    """What ptxas says of one kernel on one architecture; memory in bytes."""

    kernel: str
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int


def nvcc() -> Path | None:
    """The compiler that setup.py would take."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [f"{home}/bin/nvcc"] if home else [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    return next((Path(place) for place in places if place and os.access(place, os.X_OK)), None)


def report_of(compiler: Path, source: Path, archs: list[str], folder: Path) -> str:
    """What ptxas prints while it compiles one source for all architectures. Raises RuntimeError where it fails."""
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    target = folder / f"{source.stem}.o"
    command = [str(compiler), "-std=c++17", "-O3", "-Xptxas", "-v", *codes, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source.relative_to(ROOT)} does not compile:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def parse(report: str) -> list[Use]:
    """The kernels of a ptxas report, by their mangled names."""
    uses = []
    entries = re.split(r"Compiling entry function '", report)[1:]
    for entry in entries:
        head = re.match(r"([^']+)' for 'sm_(\w+)'", entry)
        memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry)
        registers = re.search(r"Used (\d+) registers", entry)
        if head is None or memory is None or registers is None:
            raise RuntimeError(f"ptxas wrote something else than expected:\n{entry}")
        shared = re.search(r"(\d+) bytes smem", entry)
        stack, stores, loads = map(int, memory.groups())
        uses.append(
            Use(head[1], head[2], int(registers[1]), int(shared[1]) if shared else 0, stack, max(stores, loads))
        )
    return uses


def readable(names: list[str]) -> dict[str, str]:
    """Mangled kernel names without namespace and parameters."""
    if shutil.which("c++filt") is None:
        return {name: name for name in names}
    done = subprocess.run(["c++filt", *names], check=True, capture_output=True, text=True)
    plain = (re.sub(r"\(ebp::\w+\)(\d+)", r"\1", line) for line in done.stdout.splitlines())
    return {name: re.sub(r"^void |ebp::|\((?!anonymous).*$", "", line) for name, line in zip(names, plain, strict=True)}


def table(uses: list[Use]) -> str:
    """Kernel x architecture: registers, then shared memory, stack and spills where there are any."""
    archs = sorted({use.arch for use in uses}, key=lambda arch: int(re.sub(r"\D", "", arch)))
    names = readable(sorted({use.kernel for use in uses}))
    width = max(map(len, names.values()))
    lines = [f"{'registers (+shared bytes, !spilled bytes)':<{width}} " + "".join(f"{'sm_' + a:>10}" for a in archs)]
    by_place = {(use.kernel, use.arch): use for use in uses}
    for kernel, name in sorted(names.items(), key=lambda item: item[1]):
        cells = []
        for arch in archs:
            use = by_place[kernel, arch]
            extra = (f"+{use.shared}" if use.shared else "") + (f"!{use.spills}" if use.spills else "")
            cells.append(f"{use.registers}{extra}")
        lines.append(f"{name:<{width}} " + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def over_budget(uses: list[Use]) -> list[str]:
    """A line for every kernel that takes more registers than it may, or keeps variables in memory (a stack)."""
    names = readable(sorted({use.kernel for use in uses}))
    lines = []
    for use in uses:
        name = names[use.kernel]
        budget = next(
            (most for start, most in BUDGET.items() if start is not None and name.startswith(start)), BUDGET[None]
        )
        if use.registers > budget or use.stack:
            lines.append(
                f"{name} on sm_{use.arch}: {use.registers} registers of {budget}, {use.stack} bytes of stack of 0"
            )
    return lines


def main() -> int:
    """Compiles, prints the table, and says whether anything spilled or took more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default=os.environ.get("EBP_CUDA_ARCHS", ARCHS), help="compute capabilities")
    wanted = parser.parse_args().archs.replace(",", " ").split()
    compiler = nvcc()
    if compiler is None:
        print("no nvcc in CUDA_HOME, PATH or /usr/local/cuda: nothing was checked")
        return 2
    known = subprocess.run([compiler, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout.split()
    archs = [arch for arch in wanted if f"compute_{arch}" in known]
    for arch in sorted(set(wanted) - set(archs)):
        print(f"{compiler} knows no sm_{arch}: left out")
    sources = sorted(KERNELS.glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            reports = list(pool.map(lambda source: report_of(compiler, source, archs, Path(folder)), sources))
        except RuntimeError as error:
            print(error)
            return 1
    uses = [use for report in reports for use in parse(report)]
    print(table(uses))
    spilled = [use for use in uses if use.spills]
    over = over_budget(uses)
    count = len({use.kernel for use in uses})
    print(*over, sep="\n", end="\n" if over else "")
    print(
        f"{count} kernels in {len(sources)} sources for {len(archs)} architectures: {len(spilled)} spill, "
        f"{len(over)} over budget"
    )
    return 1 if spilled or over else 0


if __name__ == "__main__":
    sys.exit(main())
