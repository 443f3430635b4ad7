"""All that a GPU must show, in two short commands: is it correct, and how fast is it.

    python tools/gpu_check.py --part correct [--out FOLDER]     at most 150 s
    python tools/gpu_check.py --part fast [--out FOLDER]        at most 270 s; useful if the first one failed, too

Needs a Python with torch (CUDA), numpy, onnx, protobuf, typer, rich, pillow, matplotlib, pytest, pytest-timeout, and
nvcc; nothing is fetched and nothing installed: the library is built in place, for this GPU only unless EBP_CUDA_ARCHS
says otherwise. Steps that can run side by side do, each in a process of its own, so that one that fails or hangs hides
no other; their output goes to FOLDER/PART.log as they end. The exit code is 1 if any failed. FOLDER holds what must be
kept, in fewer than 8 files of less than 16 MB; more is a failure, too. --rehearse runs every step on the CPU: the
kernels in the emulator, tests collected and not run, tiny networks. gpu_steps.py says what the steps are.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gpu_steps import LIMITS, ROOT, Step, steps

MOST_FILES, LARGEST_FILE = 7, 16 << 20
LEFT_OUT = "left out: no compute-sanitizer, or no GPU for it"
SHOWN = ("predict", "rows", "schedules", "forward by a library", "tuned rows", "profile", "peers")
"""Steps whose output's end is printed in any case: tables."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: what went wrong, or nothing; the last line that it wrote."""

    step: Step
    seconds: float
    trouble: str
    last_line: str


def run(step: Step, log: Path, limit: float | None = None) -> Outcome:
    """Runs one step with its output in `log`; the process and its children are ended at the limit."""
    if not step.command:
        return Outcome(step, 0.0, LEFT_OUT, "")
    start, limit = time.monotonic(), step.limit if limit is None else min(limit, step.limit)
    paths = [str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **step.environment}
    trouble = ""
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                step.command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return Outcome(step, 0.0, f"{step.command[0]}: {error.strerror}", "")
        try:
            code = process.wait(max(1.0, limit))
            trouble = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            trouble = f"not done after {max(1.0, limit):.0f} s"
    text = log.read_text(errors="replace")
    if not trouble and not re.search(step.shows, text, re.MULTILINE):
        trouble = f"its output does not say {step.shows!r}"
    lines = [line for line in text.splitlines() if line.strip()]
    return Outcome(step, time.monotonic() - start, trouble, lines[-1][:160] if lines else "")


def show(outcome: Outcome, log: Path, whole: Path) -> None:
    """What a step did, and the end of its output where it failed or holds a table; the whole of it goes to a file."""
    head = f"== {outcome.step.name}: {outcome.trouble or 'ok'} ({outcome.seconds:.0f} s)"
    text = log.read_text(errors="replace") if log.exists() else ""
    if (outcome.trouble and outcome.step.command) or outcome.step.name in SHOWN:
        print("\n".join(text.splitlines()[-40:]))
    print(head, flush=True)
    with whole.open("a") as stream:
        stream.write(f"{head}\n{text}\n")


def run_until(step: Step, log: Path, until: float) -> Outcome:
    """Runs a step for no longer than the part has left."""
    return run(step, log, until - time.monotonic())


def run_all(part: str, planned: list[Step], whole: Path, until: float) -> list[Outcome]:
    """Runs the steps, stage by stage, those of one stage side by side."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for _, together in groupby(planned, lambda step: step.stage):
            stage = list(together)
            logs = {step.name: Path(folder, re.sub(r"\W+", "-", step.name)) for step in stage}
            with ThreadPoolExecutor(min(len(stage), os.cpu_count() or 1)) as pool:
                waiting = [pool.submit(run_until, step, logs[step.name], until) for step in stage]
                for done in as_completed(waiting):
                    outcomes.append(done.result())
                    show(outcomes[-1], logs[outcomes[-1].step.name], whole)
    return outcomes


def too_much(out: Path, since: float) -> str:
    """What of the files that a part wrote is more than may be brought back from a machine, or nothing."""
    written = [path for path in out.rglob("*") if path.is_file() and path.stat().st_mtime >= since]
    large = [path.name for path in written if path.stat().st_size >= LARGEST_FILE]
    if len(written) > MOST_FILES:
        return f"{len(written)} files in {out}, wanted at most {MOST_FILES}"
    return f"{', '.join(large)} in {out} with more than {LARGEST_FILE >> 20} MB" if large else ""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build, test, watch and time ebp_cuda on a GPU.")
    parser.add_argument("--part", choices=tuple(LIMITS), required=True)
    parser.add_argument("--out", type=Path, help="folder for what must be kept (default benchmarks/results)")
    parser.add_argument("--skip", default="", help="steps to leave out, such as build,racecheck")
    parser.add_argument("--rehearse", action="store_true", help="every step on the CPU, as far as it goes there")
    args = parser.parse_args()
    if args.out is None:
        args.out = Path(tempfile.gettempdir(), "gpu_check") if args.rehearse else ROOT / "benchmarks" / "results"
    return args


def main() -> int:
    """Runs the steps of a part; 0 where all that could be asked for went well."""
    args = parse_arguments()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    whole = out / f"{args.part}.log"
    whole.write_text("")
    planned = [step for step in steps(args.part, args.rehearse, out) if step.name not in args.skip.split(",")]
    since, until = time.time(), time.monotonic() + (3600 if args.rehearse else LIMITS[args.part])
    outcomes = run_all(args.part, planned, whole, until)
    print(f"\nlogs in {whole}")
    for outcome in outcomes:
        print(f"{outcome.step.name:<28} {outcome.trouble or 'ok':<36} {outcome.seconds:6.1f} s  {outcome.last_line}")
    left_out = sum(outcome.trouble == LEFT_OUT for outcome in outcomes)
    failed = sum(bool(outcome.trouble) for outcome in outcomes) - left_out
    rehearsed = " (rehearsed on the CPU)" if args.rehearse else ""
    print(f"{len(outcomes) - failed - left_out} steps went well, {failed} failed, {left_out} left out{rehearsed}")
    if excess := too_much(out, since):
        print(f"too much to bring back: {excess}")
    return 1 if failed or excess else 0


if __name__ == "__main__":
    sys.exit(main())
