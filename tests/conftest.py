"""Same numbers on every run, and a line that says how many tests of a GPU or a browser could not run."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support import importable_torchvision  # noqa: F401 - before any test imports torchvision

from ebp_cuda.importers.onnx.call import CONVERTERS
from ebp_cuda.rules.registry import OPERATIONS
from ebp_cuda.vocabulary import SIGNATURES

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker, and for what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
elif "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


BROWSER = shutil.which("chromium") is not None and importlib.util.find_spec("playwright") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("browser") and not BROWSER:
            item.add_marker(pytest.mark.skip(reason="no chromium, or no playwright"))


def pytest_runtest_setup() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    there = {
        "gpu": (torch.cuda.is_available(), "no CUDA device"),
        "browser": (BROWSER, "no chromium, or no playwright"),
    }
    parts = []
    for mark, (is_there, missing) in there.items():
        skipped = sum(mark in getattr(report, "keywords", ()) for report in reports)
        reason = "see the reasons above" if is_there else missing
        name = "GPU" if mark == "gpu" else mark
        parts.append(f"{name} tests skipped: {skipped}" + (f" ({reason})" if skipped else ""))
    terminalreporter.write_line("; ".join(parts))
    terminalreporter.write_line(
        "seconds by room: " + ", ".join(f"{room} {took:.0f}" for room, took in by_room(terminalreporter))
    )


def by_room(terminalreporter: pytest.TerminalReporter) -> list[tuple[str, float]]:
    """How long the tests of each folder took, longest first; what several workers did at a time counts for each."""
    took: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                took[report.nodeid.split("::")[0].removeprefix("tests/").split("/")[0]] += report.duration
    return took.most_common()


@pytest.fixture
def tables_as_before() -> Iterator[None]:
    """Takes back what a test registers: operations, their signatures and rules, ONNX converters."""
    converters = {name: list(entries) for name, entries in CONVERTERS.items()}
    operations = dict(OPERATIONS)
    signatures = dict(SIGNATURES)
    rules = {name: dict(entry.rules) for name, entry in OPERATIONS.items()}
    yield
    SIGNATURES.clear()
    SIGNATURES.update(signatures)
    CONVERTERS.clear()
    CONVERTERS.update(converters)
    OPERATIONS.clear()
    OPERATIONS.update(operations)
    for name, entry in OPERATIONS.items():
        entry.rules = rules[name]
