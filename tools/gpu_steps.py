"""The steps of gpu_check.py: what runs, after what, for how long, and what its output must hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = ("memcheck", "racecheck", "initcheck")
FAMILIES = ("pointwise", "pools", "convolutions", "roundings")
DRIVER = ROOT / "build" / "gpu_driver"
LIMITS = {"correct": 150, "fast": 270}
"""Seconds that a part may take in all."""
SLOWER = 6
"""How much longer steps may take in a rehearsal, where an emulator runs the kernels."""


@dataclass(frozen=True)
class Step:
    """One command and the seconds it may take. `shows`: a pattern that its output must hold.

    Steps of one `stage` run side by side, one stage after the other.
    """

    name: str
    command: tuple[str, ...]
    limit: int
    shows: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stage: int = 0


def architecture() -> str:
    """EBP_CUDA_ARCHS, or the architecture of the GPU at hand."""
    if "EBP_CUDA_ARCHS" in os.environ:
        return os.environ["EBP_CUDA_ARCHS"]
    code = "import torch; print('%d%d' % torch.cuda.get_device_capability() if torch.cuda.is_available() else '90')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "90"


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


def building(rehearse: bool) -> Iterator[Step]:
    """The library in place, and beside it the driver of the launchers, which needs no torch."""
    python, arch = sys.executable, architecture()
    yield Step("device", ("nvidia-smi",) if not rehearse else (python, "--version"), 10)
    library = (python, "setup.py", "build_ext", "--inplace")
    yield Step("build", library, 90, "built ", {"EBP_CUDA_ARCHS": "" if rehearse else arch})
    driver = (python, "tools/gpu_driver.py", *(["--emulate"] if rehearse else ["--arch", arch.split()[-1]]))
    yield Step("driver", driver, 90, "built ")


def correct(rehearse: bool) -> Iterator[Step]:
    """Build for the GPU at hand, then ops by family, tests by file and the watched driver, all side by side."""
    python, device = sys.executable, "cpu" if rehearse else "cuda"
    yield from building(rehearse)
    ours = f"import torch, ebp_cuda.ops as o; o.require_device(torch.device('{device}')); print(o.build_info())"
    yield Step("import", (python, "-c", ours), 30, stage=1)
    yield Step("launchers", (str(DRIVER), "check"), 40, "^0 wrong", stage=1)
    tool = sanitizer()
    for name in SANITIZERS:
        watch = (tool, "--tool", name, "--error-exitcode", "9", str(DRIVER), "check") if tool and not rehearse else ()
        yield Step(name, watch, 60, "0 wrong", stage=1)
    for family in FAMILIES:
        ops = (python, "tools/gpu_ops.py", device, "--family", family, *(["--quick"] if rehearse else []))
        yield Step(f"ops: {family}", ops, 60, " 0 wrong", stage=1)
    collect = ("--collect-only", "-q") if rehearse else ("-v", "--timeout", "40")
    for file in gpu_tests():
        pytest = (python, "-m", "pytest", file, "-m", "gpu", "-p", "no:cacheprovider", "-rf", *collect)
        # a run in which every test was skipped has shown nothing
        yield Step(f"tests: {Path(file).name}", pytest, 75, r"tests? collected|[1-9]\d* passed", stage=1)


def fast(rehearse: bool, out: Path) -> Iterator[Step]:
    """Predictions, rows of the benchmark, times of every schedule and of the library's forward, rows by the best
    schedules, a profile; peers last. One at a time."""
    python, tiny = sys.executable, (["--rehearse"] if rehearse else [])
    yield from building(rehearse)
    launches, choices = DRIVER.with_name("launches.json"), DRIVER.with_name("choices.json")
    predict = (python, "tools/predict_gpu.py", "--launches", str(launches), *tiny)
    yield Step("predict", predict, 60, "not measured", stage=1)
    bench = (python, "tools/gpu_bench.py", "--out", str(out), "--predicted", str(launches), *tiny)
    yield Step("rows", (*bench, "--seconds", "45"), 60, "maps/s", stage=2)
    kept = ("--times", f"{out}/times.txt", "--choices", str(choices))
    tune = (python, "tools/gpu_tune.py", str(launches), "--driver", str(DRIVER), *kept, *tiny)
    yield Step("schedules", (*tune, "--seconds", "45"), 50, "chosen", stage=3)
    library = (python, "tools/gpu_library.py", "--out", f"{out}/forward.jsonl", "--seconds", "20", *tiny)
    yield Step("forward by a library", library, 35, "convolutions timed", stage=4)
    tuned = (*bench, "--choices", str(choices), "--dtypes", "fp32,tf32", "--seconds", "15")
    yield Step("tuned rows", tuned, 30, "maps/s", stage=5)
    yield Step("profile", (python, "tools/gpu_profile.py", *tiny), 30, "Self", stage=6)
    yield Step("peers", (*bench, "--peers", "--seconds", "60"), 75, "maps/s", stage=7)


def steps(part: str, rehearse: bool, out: Path) -> list[Step]:
    """The steps of a part, in order of their stages."""
    planned = correct(rehearse) if part == "correct" else fast(rehearse, out)
    return [replace(step, limit=SLOWER * step.limit) if rehearse else step for step in planned]
