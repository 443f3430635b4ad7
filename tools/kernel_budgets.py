"""What each kernel may cost: counts of its code and of what it executes, against kernel_budgets.json.

The counts belong to one release of nvcc, whose name stands in the file. A count above its budget fails; one that is
lower is said, so that the budget can follow it (check_cuda.py --write-budgets).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
Counts = Mapping[str, Mapping[str, float]]
"""By kernel and name of the count."""
SLACK = 1e-3


def load(file: Path = FILE) -> tuple[str, Counts]:
    """The nvcc release that the budgets belong to, and the budgets."""
    content: dict[str, Any] = json.loads(file.read_text())
    return content["nvcc"], content["kernels"]


def write(release: str, counts: Counts, file: Path = FILE) -> None:
    """Makes the counts the budgets."""
    lines = [f"  {json.dumps(kernel)}: {json.dumps(counts[kernel])}" for kernel in sorted(counts)]
    file.write_text(f'{{\n "nvcc": "{release}",\n "kernels": {{\n' + ",\n".join(lines) + "\n }\n}\n")


def merged(*parts: Counts) -> dict[str, dict[str, float]]:
    """The counts of several instruments in one table."""
    together: dict[str, dict[str, float]] = {}
    for part in parts:
        for kernel, counts in part.items():
            together.setdefault(kernel, {}).update(counts)
    return together


def exceeded(counts: Counts, budgets: Counts) -> list[str]:
    """A line for every count above its budget, and for every kernel or count that has none."""
    lines = []
    for kernel, name, count in flat(counts):
        budget = budgets.get(kernel, {}).get(name)
        if budget is None:
            lines.append(f"{kernel}: {name} is {count:g}, and has no budget")
        elif count > budget * (1 + SLACK):
            lines.append(f"{kernel}: {name} is {count:g} of {budget:g}")
    return lines


def slack(counts: Counts, budgets: Counts) -> list[str]:
    """A line for every count that is lower than its budget, and every budget of a kernel that is gone."""
    lines = [f"{kernel}: is gone" for kernel in budgets if kernel not in counts]
    for kernel, name, count in flat(counts):
        budget = budgets.get(kernel, {}).get(name)
        if budget is not None and count < budget * (1 - SLACK):
            lines.append(f"{kernel}: {name} is {count:g} of {budget:g}")
    return lines


def flat(counts: Counts) -> list[tuple[str, str, float]]:
    return [(kernel, name, count) for kernel, part in sorted(counts.items()) for name, count in part.items()]
