"""All that a GPU must show, in one call under ten minutes: build, tests, sanitizer, benchmark.

    python tools/gpu_check.py [--out FOLDER] [--skip STEP,STEP] [--rehearse]

Needs a Python with torch (CUDA), numpy, onnx, protobuf, typer, rich, pillow, matplotlib, pytest, and nvcc; nothing is
fetched and nothing installed: the library is built in place, for this GPU only unless EBP_CUDA_ARCHS says otherwise. A
step that fails is reported and the next one still runs; the exit code is 1 if any failed. What the steps wrote is in
FOLDER/gpu_check.log, the times in FOLDER/DEVICE-DATE.md and .json. --rehearse runs every step on the CPU: the tests are
collected and not run, and the benchmark's networks are tiny.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = ("memcheck", "racecheck", "synccheck")
LEFT_OUT = "left out: no compute-sanitizer, or no GPU for it"


@dataclass(frozen=True)
class Step:
    """One command and the seconds it may take. `shows`: a pattern that its output must hold."""

    name: str
    command: tuple[str, ...]
    limit: int
    shows: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a step ended: what went wrong, or nothing; the last line that it wrote."""

    step: Step
    seconds: float
    trouble: str
    last_line: str


def architecture() -> dict[str, str]:
    """EBP_CUDA_ARCHS for the GPU at hand, where the caller has not set it."""
    if "EBP_CUDA_ARCHS" in os.environ:
        return {}
    code = "import torch; print('%d%d' % torch.cuda.get_device_capability() if torch.cuda.is_available() else '90')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return {"EBP_CUDA_ARCHS": done.stdout.strip()} if done.returncode == 0 else {}


def sanitizer() -> str | None:
    """compute-sanitizer of CUDA_HOME, PATH or /usr/local/cuda."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [f"{home}/{folder}" for home in homes if home for folder in ("bin", "extras/compute-sanitizer")]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def gpu_tests() -> list[str]:
    """The test files with tests for a GPU; collecting all would take their libraries' imports as well."""
    marked = re.compile(r"mark\.gpu|\bDEVICES\b")
    return [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("tests/*/test_*.py"))
        if marked.search(path.read_text())
    ]


def steps(rehearse: bool, out: Path) -> Iterator[Step]:
    """The steps in order, at most ten minutes together; those that cannot run here have no command."""
    python, device = sys.executable, "cpu" if rehearse else "cuda"
    yield Step("device", ("nvidia-smi",) if not rehearse else (python, "--version"), 15)
    yield Step("build", (python, "setup.py", "build_ext", "--inplace"), 120, "built ", architecture())
    ours = f"import torch, ebp_cuda.ops as o; o.require_device(torch.device('{device}')); print(o.build_info())"
    yield Step("import", (python, "-c", ours), 30)
    yield Step("ops", (python, "tools/gpu_ops.py", device), 45, " 0 wrong")
    collect = ("--collect-only",) if rehearse else ("--continue-on-collection-errors", "-rf", "--durations=8")
    pytest = (python, "-m", "pytest", *gpu_tests(), "-m", "gpu", "-q", "-p", "no:cacheprovider", *collect)
    # a run in which every test was skipped has shown nothing
    yield Step("tests", pytest, 140, r"tests collected|[1-9]\d* passed")
    tool = sanitizer()
    for name in SANITIZERS:
        watched = (python, "tools/gpu_ops.py", device, "--quick")
        command = (tool, "--tool", name, "--error-exitcode", "9", *watched) if tool and not rehearse else ()
        yield Step(name, command, 30, " 0 wrong")
    bench = (python, "tools/gpu_bench.py", "--out", str(out), "--seconds", "100", *(["--rehearse"] if rehearse else []))
    yield Step("benchmark", bench, 135, "maps/s")


def run(step: Step, log: Path) -> Outcome:
    """Runs one step with its output in `log`; the process and its children are ended at the limit."""
    if not step.command:
        return Outcome(step, 0.0, LEFT_OUT, "")
    start = time.monotonic()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        **step.environment,
    }
    trouble = ""
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                step.command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return Outcome(step, 0.0, f"{step.command[0]}: {error.strerror}", "")
        try:
            code = process.wait(step.limit)
            trouble = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            trouble = f"not done after {step.limit} s"
    text = log.read_text(errors="replace")
    if not trouble and not re.search(step.shows, text):
        trouble = f"its output does not say {step.shows!r}"
    lines = [line for line in text.splitlines() if line.strip()]
    return Outcome(step, time.monotonic() - start, trouble, lines[-1][:160] if lines else "")


def show(outcome: Outcome, log: Path) -> None:
    """What a step did; all of its output's end where it failed, and the benchmark's table in any case."""
    if (outcome.trouble and outcome.step.command) or outcome.step.name == "benchmark":
        print("\n".join(log.read_text(errors="replace").splitlines()[-60:]))
    print(f"== {outcome.step.name}: {outcome.trouble or 'ok'} ({outcome.seconds:.0f} s)", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build, test, sanitize and time ebp_cuda on a GPU.")
    parser.add_argument("--out", type=Path, help="folder for the benchmark's results (default benchmarks/results)")
    parser.add_argument("--skip", default="", help="steps to leave out, such as build,racecheck")
    parser.add_argument("--rehearse", action="store_true", help="every step on the CPU, as far as it goes there")
    args = parser.parse_args()
    if args.out is None:
        args.out = Path(tempfile.gettempdir(), "gpu_check") if args.rehearse else ROOT / "benchmarks" / "results"
    return args


def main() -> int:
    """Runs the steps; 0 where all that could be asked for went well."""
    args = parse_arguments()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    whole, log = out / "gpu_check.log", out / "step.log"
    whole.write_bytes(b"")
    outcomes = []
    for step in steps(args.rehearse, out):
        if step.name in args.skip.split(","):
            continue
        log.write_bytes(b"")
        outcome = run(step, log)
        show(outcome, log)
        outcomes.append(outcome)
        with whole.open("ab") as stream:
            stream.write(f"==== {step.name}: {outcome.trouble or 'ok'} ({outcome.seconds:.0f} s)\n".encode())
            stream.write(log.read_bytes())
    log.unlink()
    print(f"\nlogs in {whole}")
    for outcome in outcomes:
        print(f"{outcome.step.name:<12} {outcome.trouble or 'ok':<40} {outcome.seconds:6.1f} s  {outcome.last_line}")
    left_out = sum(outcome.trouble == LEFT_OUT for outcome in outcomes)
    failed = sum(bool(outcome.trouble) for outcome in outcomes) - left_out
    rehearsed = " (rehearsed on the CPU)" if args.rehearse else ""
    print(f"{len(outcomes) - failed - left_out} steps went well, {failed} failed, {left_out} left out{rehearsed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
