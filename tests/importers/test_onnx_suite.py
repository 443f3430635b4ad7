"""The onnx package's own tests: what is imported computes the specification's values, and all else is refused by name.

A sample by a fixed seed is part of every run; `make test-onnx` runs the whole.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from support import onnx_suite
from support.onnx_suite import Case

SEED, SAMPLE = 16, 400
LEAST_EQUAL = 950


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return onnx_suite.cases()


def _bad(cases: list[Case]) -> tuple[Counter, list[str]]:
    """How many cases went which way, and those that are wrong, crashed, or refused without the opset in the reason."""
    counts: Counter[str] = Counter()
    bad = []
    for case in cases:
        result = onnx_suite.run(case)
        counts[result.verdict] += 1
        nameless = result.verdict == "refused" and "node '" in result.reason and "opset" not in result.reason
        if result.verdict in ("wrong", "crashed") or nameless:
            bad.append(f"{case}: {result.verdict}: {result.reason}")
    return counts, bad


def test_a_sample_is_right_or_refused_by_name(cases: list[Case]) -> None:
    counts, bad = _bad(random.Random(SEED).sample(cases, SAMPLE))
    assert not bad
    assert counts["equal"] >= 0.9 * SAMPLE * LEAST_EQUAL / len(cases)


@pytest.mark.slow
def test_the_whole_is_right_or_refused_by_name(cases: list[Case]) -> None:
    counts, bad = _bad(cases)
    assert not bad
    assert counts["equal"] >= LEAST_EQUAL
