"""Compiles every CUDA source for every architecture, counts what the kernels cost, and runs their PTX; with no GPU.

    python tools/check_cuda.py [--archs "75 80 90"] [--no-run] [--write-budgets]

Prints registers and shared memory of every kernel for every architecture. Of the machine code for 9.0 it counts the
instructions of one step of the main loop by kind and the bytes (sass.py, where there is nvdisasm), and runs the PTX for
9.0 on the CPU (tests/ptx, the quick set), which checks results and counts bank conflicts, sectors per request and
executed instructions. kernel_budgets.json holds what each count may be. Exit code 1 where a kernel spills, costs more
than its budget, does not compile or computes something wrong; 2 where there is no nvcc. --no-run: compile and count
only. --write-budgets: what was counted becomes the budgets. Dynamic shared memory is no part of ptxas' report:
launchers assert its size as they compile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import kernel_budgets
import sass
from sass import readable

ROOT = Path(__file__).resolve().parent.parent

KERNELS = ROOT / "csrc" / "cuda"
ARCHS = "75 80 86 89 90 100 120"
COUNTED = "90"
"""The architecture whose code is counted and whose PTX runs."""


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


def release_of(compiler: Path) -> str:
    text = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout
    release = re.search(r"\bV([\d.]+)", text)
    return release[1] if release else "unknown"


def compile_unit(compiler: Path, source: Path, archs: Sequence[str], folder: Path) -> str:
    """Compiles one source for all architectures and returns ptxas' report; object, PTX and cubins stay in `folder`.

    Raises RuntimeError where it fails.
    """
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    target, kept = folder / f"{source.stem}.o", folder / source.stem
    kept.mkdir()
    keep = ["--keep", "--keep-dir", str(kept)]
    flags = ["-std=c++17", "-O3", "-Xcompiler=-fPIC", "-Xptxas", "-v", *codes, *keep]
    done = subprocess.run([compiler, *flags, "-c", source, "-o", target], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source.relative_to(ROOT)} does not compile:\n{done.stdout}{done.stderr}")
    for suffix in ("ptx", "cubin"):  # nvcc leaves the architecture out of the name where there is one only
        names = (f"{source.stem}.compute_{COUNTED}.{suffix}", f"{source.stem}.{suffix}")
        made = next((kept / name for name in names if (kept / name).exists()), None)
        if made is not None:
            made.rename(folder / names[0])
    return done.stdout + done.stderr


def parse(report: str) -> list[Use]:
    """The kernels of a ptxas report, by their mangled names."""
    uses = []
    for entry in re.split(r"Compiling entry function '", report)[1:]:
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


def table(uses: Sequence[Use]) -> str:
    """Kernel x architecture: registers, then shared memory, stack and spills where there are any."""
    archs = sorted({use.arch for use in uses}, key=lambda arch: int(re.sub(r"\D", "", arch)))
    names = readable({use.kernel for use in uses})
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


def spilling(uses: Sequence[Use]) -> list[str]:
    """A line for every kernel that keeps variables in memory."""
    names = readable({use.kernel for use in uses})
    return [
        f"{names[use.kernel]} on sm_{use.arch}: spills {use.spills} bytes, a stack of {use.stack}"
        for use in uses
        if use.spills or use.stack
    ]


def register_counts(uses: Sequence[Use]) -> dict[str, dict[str, float]]:
    """The most registers over the architectures of 8.0 and later, by readable name: what fits a processor."""
    names, most = readable({use.kernel for use in uses}), {}
    for use in uses:
        if use.arch != "75":
            kept = most.setdefault(names[use.kernel], {"registers": 0.0})
            kept["registers"] = max(kept["registers"], float(use.registers))
    return most


def code_counts(folder: Path) -> dict[str, dict[str, float]]:
    """Bytes, and instructions of a step, of every kernel; nothing where there is no nvdisasm."""
    disassembler = sass.nvdisasm()
    if disassembler is None:
        print("no nvdisasm (pip install nvidia-cuda-nvdisasm): the machine code was not counted")
        return {}
    code = {}
    for cubin in sorted(folder.glob(f"*.compute_{COUNTED}.cubin")):
        code |= sass.read_cubin(disassembler, cubin)
    names = readable(code)
    return {
        names[kernel]: {"code bytes": float(c.size), **{f"step: {kind}": float(n) for kind, n in c.step.items()}}
        for kernel, c in code.items()
    }


def run_ptx(folder: Path) -> tuple[dict[str, dict[str, float]], bool]:
    """Runs the quick set of tests/ptx on what was compiled: its figures, and whether all went well."""
    figures = folder / "figures.json"
    command = [sys.executable, str(ROOT / "tests/ptx/run.py"), "--quick", "--archs", COUNTED]
    command += ["--compiled", str(folder), "--build", str(folder / "executor"), "--json", str(figures)]
    done = subprocess.run(command, check=False)
    return json.loads(figures.read_text()) if figures.exists() else {}, done.returncode == 0


def compare(counts: kernel_budgets.Counts, release: str) -> list[str]:
    """What costs more than it may; only said where the budgets belong to another nvcc."""
    wanted, budgets = kernel_budgets.load()
    over, less = kernel_budgets.exceeded(counts, budgets), kernel_budgets.slack(counts, budgets)
    for title, lines in (("over budget", over), ("below budget, which can follow (--write-budgets)", less)):
        print(*[f"{title}: {line}" for line in lines], sep="\n", end="\n" if lines else "")
    if release != wanted:
        print(f"the budgets are those of nvcc {wanted}, this is {release}: not held against it")
        return []
    return over


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default=os.environ.get("EBP_CUDA_ARCHS", ARCHS), help="compute capabilities")
    parser.add_argument("--no-run", action="store_true", help="do not run the PTX")
    parser.add_argument("--write-budgets", action="store_true", help="make what was counted the budgets")
    return parser.parse_args()


def check(compiler: Path, archs: Sequence[str], args: argparse.Namespace, folder: Path) -> int:
    """Compiles into the folder, prints, counts and runs."""
    sources = sorted(KERNELS.glob("*.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            reports = list(pool.map(lambda source: compile_unit(compiler, source, archs, folder), sources))
        except RuntimeError as error:
            print(error)
            return 1
    uses = [use for report in reports for use in parse(report)]
    print(table(uses), flush=True)
    spilled, ran, over = spilling(uses), True, list[str]()
    print(*spilled, sep="\n", end="\n" if spilled else "")
    if COUNTED in archs:
        counts = kernel_budgets.merged(register_counts(uses), code_counts(folder))
        if not args.no_run:
            figures, ran = run_ptx(folder)
            counts = kernel_budgets.merged(counts, figures)
        if args.write_budgets:
            kernel_budgets.write(release_of(compiler), counts)
        over = compare(counts, release_of(compiler))
    kernels = len({use.kernel for use in uses})
    print(
        f"{kernels} kernels in {len(sources)} sources for {len(archs)} architectures: {len(spilled)} spill, "
        f"{len(over)} counts over budget, {'no faults' if ran else 'FAULTS'} in their PTX"
    )
    return 1 if spilled or over or not ran else 0


def main() -> int:
    args = parse_arguments()
    compiler = nvcc()
    if compiler is None:
        print("no nvcc in CUDA_HOME, PATH or /usr/local/cuda: nothing was checked")
        return 2
    wanted = args.archs.replace(",", " ").split()
    known = subprocess.run([compiler, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout.split()
    archs = [arch for arch in wanted if f"compute_{arch}" in known]
    for arch in sorted(set(wanted) - set(archs)):
        print(f"{compiler} knows no sm_{arch}: left out")
    with tempfile.TemporaryDirectory() as folder:
        return check(compiler, archs, args, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
