"""The fuzzer: `python tests/fuzz/run.py [TARGET ...] [--seconds 60] [--seed 0] [--out findings]`.

Seeds are the test data; mutations know the format. Whatever is no EBPError, a model that onnx.checker refuses, an input
that takes over 10 s or memory that grows by over 1 GB is a finding: it is written to --out and the run ends with exit
code 1. Where atheris is installed (CPython, Linux), the mutations are guided by the coverage of ebp_cuda, in a process
for each target; --plain goes without.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "tools"), str(TESTS.parent)]
GUIDED = "--guided" in sys.argv

if GUIDED:  # atheris watches the coverage of what is imported in here
    import atheris

    with atheris.instrument_imports(include=["ebp_cuda.importers", "ebp_cuda.batch", "ebp_cuda.images"]):
        from fuzz import importers, readers
else:
    from fuzz import importers, readers

from memory import growth  # noqa: E402

from ebp_cuda.errors import EBPError  # noqa: E402

SECONDS, MEGABYTES = 10.0, 1000
CORPUS = Path(__file__).parent / "corpus"
Target = tuple[Callable[[], list[bytes]], Callable[[bytes, random.Random, list[bytes]], bytes], Callable[..., None]]
TARGETS: dict[str, Target] = {**importers.TARGETS, **readers.TARGETS}


def finding(target: Callable[[bytes, Path], None], data: bytes, folder: Path) -> str | None:
    """What is wrong with how an input was taken; None where it was read or refused as promised."""
    start = time.process_time()

    def taken() -> None:
        with contextlib.suppress(EBPError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(data, folder)

    try:
        grown = growth(taken) / 1e6
    except Exception:
        return traceback.format_exc()
    seconds = time.process_time() - start
    if seconds > SECONDS or grown > MEGABYTES:
        return f"{seconds:.1f} s, {grown:.0f} MB"
    return None


def seeds_of(name: str) -> list[bytes]:
    """The seeds of a target, and what was found before."""
    return [*TARGETS[name][0](), *(path.read_bytes() for path in sorted(CORPUS.glob(f"{name}-*")))]


class Report:
    """What a target took so far: inputs, CPU seconds, findings by their kind."""

    def __init__(self, name: str, seed: int, out: Path) -> None:
        self.out, self._name, self._seed = out, name, seed
        self._start, self._written = time.process_time(), 0.0
        self.inputs, self.findings = 0, 0
        self.kinds: list[str] = []

    def add(self, data: bytes, problem: str | None) -> None:
        """Counts an input; the first of a kind of problem is kept as a file and printed."""
        self.inputs += 1
        if problem is None:
            return
        self.findings += 1
        kind = problem.strip().splitlines()[-1][:80]
        if kind not in self.kinds:
            self.kinds.append(kind)
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / f"{self._name}-{self._seed}-{self.inputs}").write_bytes(data)
            print(problem, file=sys.stderr)

    def result(self) -> dict[str, Any]:
        cpu = round(time.process_time() - self._start, 1)
        return {"inputs": self.inputs, "cpu_seconds": cpu, "findings": self.findings, "kinds": self.kinds}

    def write(self) -> None:
        """Into a file, at most once a second: nobody says when libFuzzer ends the process."""
        if time.monotonic() - self._written > 1:
            self._written = time.monotonic()
            (self.out / f"{self._name}.json").write_text(json.dumps(self.result()))


def plainly(name: str, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """Random mutations of the seeds."""
    _, mutate, target = TARGETS[name]
    known, rng = seeds_of(name), random.Random(seed)
    report, end = Report(name, seed, out), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = mutate(rng.choice(known), rng, known)
            report.add(data, finding(target, data, Path(folder)))
    return report.result()


def guided(name: str, seconds: float, seed: int, out: Path) -> None:
    """Mutations guided by coverage; ends the process. A finding does not end the run: it is counted by its kind."""
    _, mutate, target = TARGETS[name]
    known = seeds_of(name)
    folder, corpus = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    for index, data in enumerate(known):
        (corpus / f"seed{index}").write_bytes(data)
    out.mkdir(parents=True, exist_ok=True)
    report = Report(name, seed, out)

    def change(data: bytes, size: int, number: int) -> bytes:
        return mutate(data or known[0], random.Random(number), known)[:size]

    def test(data: bytes) -> None:
        report.add(data, finding(target, data, folder))
        report.write()

    limits = ["-timeout=30", "-rss_limit_mb=4000", "-max_len=1000000", f"-artifact_prefix={out}/{name}-"]
    options = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed + 1}", "-verbosity=0", *limits]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test, custom_mutator=change)
    atheris.Fuzz()


def in_a_process(name: str, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """`guided`, whose libFuzzer ends its process."""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, name, "--guided", "--seconds", str(seconds), "--seed", str(seed), "--out", out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    nothing = {"inputs": 0, "cpu_seconds": 0.0, "findings": 0, "kinds": []}
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else nothing
    if done.returncode:
        result["findings"] += 1
        print(done.stderr[-2000:])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them")
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    parser.add_argument("--plain", action="store_true", help="without coverage")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    each = options.seconds / len(names)
    if options.guided:
        guided(names[0], options.seconds, options.seed, options.out)
    with_coverage = not options.plain and importlib.util.find_spec("atheris") is not None
    bad = 0
    for name in names:
        result = (in_a_process if with_coverage else plainly)(name, each, options.seed, options.out)
        bad += result["findings"]
        counts = f"{result['inputs']} inputs, {result['findings']} findings"
        print(f"{name}: {counts} in {each:.0f} s ({result['cpu_seconds']:.0f} s of CPU)", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
