"""Files from strangers: any of them gives a result or an EBPError, soon and in little memory.

corpus holds what fuzzing found (see run.py), by target: prototxt-*, onnx-*, photo-*, ... Longer runs: `make fuzz`.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebp_cuda.errors import EBPError
from fuzz import run

EXAMPLES = {"prototxt": 60, "caffemodel": 40, "hdf5": 40, "onnx": 30}
"""Of mutated files; of the others 40."""


@pytest.mark.parametrize("path", sorted(run.CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_fuzzing_found_stays_fixed(tmp_path: Path, path: Path) -> None:
    target = run.TARGETS[path.name.split("-")[0]][2]
    assert run.finding(target, path.read_bytes(), tmp_path) is None


@pytest.mark.parametrize("name", run.TARGETS)
def test_mutated_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    _, mutate, target = run.TARGETS[name]
    known = run.seeds_of(name)
    refused = []

    @settings(max_examples=EXAMPLES.get(name, 40), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(range(len(known))), st.integers(0, 1 << 32))
    def check(index: int, seed: int) -> None:
        data = mutate(known[index], random.Random(seed), known)
        problem = run.finding(target, data, tmp_path)
        assert problem is None, problem
        try:
            target(data, tmp_path)
        except EBPError:
            refused.append(seed)

    check()
    assert refused, "the mutations break nothing"


def test_the_fuzzer_sees_what_is_wrong(tmp_path: Path) -> None:
    def hungry(data: bytes, folder: Path) -> None:
        bytearray(1_200_000_000)[::4096] = b"x" * len(range(0, 1_200_000_000, 4096))

    def failing(data: bytes, folder: Path) -> None:
        raise KeyError("x")

    assert "MB" in (run.finding(hungry, b"", tmp_path) or "")
    assert "KeyError" in (run.finding(failing, b"", tmp_path) or "")
    assert run.finding(lambda data, folder: None, b"", tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--plain", ""])
def test_a_fuzzer_run(how: str, tmp_path: Path) -> None:
    """About 20 s each."""
    command = [sys.executable, run.__file__, "prototxt", "tar", "--seconds", "8", "--out", str(tmp_path / "found")]
    done = subprocess.run([*command, *filter(None, [how])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"(\w+): (\d+) inputs, 0 findings in 4 s", done.stdout)
    assert [name for name, _ in counts] == ["prototxt", "tar"] and all(int(count) > 20 for _, count in counts)
