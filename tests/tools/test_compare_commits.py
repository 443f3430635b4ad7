"""The comparison of two commits: its statistics, what it counts, and a run of this checkout against itself."""

from __future__ import annotations

import random

import compare_commits
import pytest
import torch
from support.paths import ROOT


def test_the_interval_holds_the_median_nineteen_times_in_twenty() -> None:
    draw = random.Random(0)
    held = 0
    for _ in range(1000):
        low, high = compare_commits.interval([draw.lognormvariate(0, 0.3) for _ in range(20)])
        held += low <= 1 <= high
    assert 940 <= held <= 995
    assert compare_commits.interval([1.2] * 4) == (0.0, float("inf"))  # too few to say anything


@pytest.mark.parametrize(
    ("ratios", "wanted"), [([1.02] * 20, True), ([1.1] * 20, False), ([0.9, 1.3] * 10, True), ([0.5] * 20, True)]
)
def test_a_row_passes_where_it_is_not_slower_as_far_as_the_rounds_can_tell(ratios: list[float], wanted: bool) -> None:
    assert compare_commits.passes(ratios) is wanted


def test_calls_and_bytes_of_a_call_are_counted() -> None:
    x = torch.zeros(10, 10)
    counts = compare_commits.counted(lambda: (x + 1).add_(1).relu())
    assert counts == {"calls": {"aten.add": 1, "aten.add_": 1, "aten.relu": 1}, "bytes": 800}
    other = {"calls": {"aten.add": 2, "aten.add_": 1}, "bytes": 900}
    assert compare_commits.differences(counts, other) == [
        "aten.add: 1 -> 2 calls",
        "aten.relu: 1 -> 0 calls",
        "memory: 0.00 -> 0.00 MB allocated",
    ]
    assert compare_commits.differences(counts, counts) == []


def test_maps_that_differ_are_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Side:
        def __init__(self, value: float) -> None:
            self.value = value

        def ask(self, do: str, row: int = 0) -> object:
            return {"make": [self.value, 1.0], "run": 5.0, "count": {"calls": {}, "bytes": 0}}[do]

    assert compare_commits.compare(0, (Side(1.0), Side(1.0)), 20) == 0  # type: ignore[arg-type]
    assert compare_commits.compare(0, (Side(1.0), Side(1.5)), 20) == 2  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_checkout_equals_itself(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    code = compare_commits.main([str(ROOT), str(ROOT), "--rows", "digits", "--rounds", "2"])
    printed = capsys.readouterr().out
    assert code == 0 and "maps bit-equal" in printed and "calls" not in printed
