"""Runs the PTX that nvcc makes of the project's kernels, with no GPU, and prints a table per kernel.

    python tests/ptx/run.py [--archs "90 120"] [--cases 60] [--mutations 40] [--quick] [--build DIR] [--json FILE]

Exit code 1 on any fault, 2 where there is no nvcc. README.md says what is checked. --quick: few problems, one
architecture, no mutations. --json: the figures of every kernel (banks, sectors, instructions), for the budgets.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import correctness
import figures
import mutate
from executor_build import build
from machine import Machine
from runner import Runner

warnings.filterwarnings("ignore", category=RuntimeWarning)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the kernels' PTX without a GPU.")
    parser.add_argument("--build", type=Path, help="folder for what is compiled (default: a temporary one)")
    parser.add_argument("--compiled", type=Path, help="folder that holds objects and PTX already (executor_build.py)")
    parser.add_argument("--archs", default="90 120")
    parser.add_argument("--cases", type=int, default=60, help="convolutions (default 60)")
    parser.add_argument("--mutations", type=int, default=40, help="mistakes to put into each of two units (default 40)")
    parser.add_argument("--quick", action="store_true", help="few problems, one architecture, no mutations")
    parser.add_argument("--json", type=Path, help="file for the figures of the first architecture")
    args = parser.parse_args()
    if args.quick:
        args.mutations, args.archs = 0, args.archs.split()[0]
    return args


def loaded(library: Path, arch: str, files: list[Path]) -> tuple[Machine, list[str]]:
    """A machine with the kernels of one architecture, and what could not be read of them."""
    m = Machine(library)
    m.set(arch=int(arch))
    m.load(files)
    troubles = [f"not read: {complaint}" for complaint in m.complaints]
    troubles += [f"not supported in {name}: {p.unsupported}" for name, p in m.programs.items() if p.unsupported]
    if set(m.kernel_names()) != set(m.programs):
        troubles.append(f"host code and PTX hold other kernels: {set(m.kernel_names()) ^ set(m.programs)}")
    return m, troubles


def one_architecture(library: Path, arch: str, files: list[Path], args: argparse.Namespace, first: bool) -> list[str]:
    """Runs everything on the PTX of one architecture; the troubles, told."""
    start = time.monotonic()
    m, troubles = loaded(library, arch, files)
    count = sum(len(p.ops) for p in m.programs.values())
    print(f"\n== compute_{arch}: {len(m.programs)} kernels, {count} PTX instructions", flush=True)
    runner = Runner(m, thorough=not args.quick)
    problems = correctness.QUICK if args.quick else correctness.everything(args.cases)
    correctness.run(runner, problems)
    covered = figures.coverage(m)
    print(f"{sum(r.cases for r in runner.records.values())} results in {time.monotonic() - start:.0f} s", flush=True)
    for name in m.programs:
        if runner.records[name].cases == 0 and not (int(arch) < 80 and "mma" in name):
            troubles.append(f"never launched: {name}")
    rows = figures.measure(m) if first else []
    print(figures.table(runner, covered, rows))
    if first and args.json:
        args.json.write_text(json.dumps(figures.by_kernel(m, rows), indent=1))
    troubles += runner.problems
    if first and args.mutations:
        troubles += [f"mistake not noticed: {text}" for text in mutate.run(library, arch, files, args.mutations)]
    print(*(f"FAULT: {text}" for text in troubles), sep="\n", end="\n" if troubles else "", flush=True)
    return troubles


def main() -> int:
    args = parse_arguments()
    if shutil.which("nvcc") is None:
        print("no nvcc in PATH: no PTX to run")
        return 2
    start = time.monotonic()
    troubles: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        library, modules = build(args.build or Path(scratch), args.archs.split(), args.compiled)
        print(f"built in {time.monotonic() - start:.0f} s", flush=True)
        for index, (arch, files) in enumerate(modules.items()):
            troubles += one_architecture(library, arch, files, args, index == 0)
    print(f"{time.monotonic() - start:.0f} s in all; {len(troubles) or 'no'} faults")
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main())
