"""Writes the table of ONNX operators in docs/models.md: PYTHONPATH=tests python -m support.onnx_table

It runs the whole of the onnx package's tests for the counts. test_onnx_suite.py asks for the same rows, so that the
table cannot say what is no longer so: the counts with `make test-onnx`, the rest in every run.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping

from ebp_cuda.importers.onnx.call import CONVERTERS, Converter
from ebp_cuda.importers.onnx.folding import FOLDED
from support import onnx_suite, paths

PAGE = paths.ROOT / "docs" / "models.md"
START, END = "<!-- table: PYTHONPATH=tests python -m support.onnx_table -->", "<!-- end of operators -->"
HEAD = ["| operator | opsets | read | tests equal | refused |", "|---|---|---|---|---|"]
AT_IMPORT = {"Constant", *FOLDED}
"""What is computed at import, and needs no layer."""

Key = tuple[str, int]
"""An operator and the oldest opset of the converter that reads it; 0 where none does."""


class Tally:
    """Counts of the package's tests: in all, and by operator."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.by_operator: dict[Key, Counter[str]] = defaultdict(Counter)

    def add(self, case: onnx_suite.Case, verdict: str) -> None:
        """Counts a case once for every operator of its graph."""
        self.verdicts[verdict] += 1
        model = case.read()[0]
        opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
        for operator in {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}:
            ranges = CONVERTERS.get(operator, ())
            since = next((entry.since for entry in ranges if entry.since <= opset <= entry.until), 0)
            self.by_operator[operator, since][verdict] += 1


def entries() -> list[Converter]:
    """The converters of operators, sorted."""
    known = [entry for ranges in CONVERTERS.values() for entry in ranges if "." not in entry.operator]
    return sorted(known, key=lambda entry: (entry.operator, entry.since))


def row(entry: Converter) -> str:
    """What a row says of a converter, without the counts."""
    limits = (entry.convert.__doc__ or "").split("\n")[0].rstrip(".")
    return f"| {entry.operator} | {entry.since} to {entry.until} | {limits} |"


def table(by_operator: Mapping[Key, Mapping[str, int]]) -> str:
    """The whole of the table."""
    rows = []
    for entry in entries():
        counts = by_operator.get((entry.operator, entry.since), {})
        rows.append(f"{row(entry)} {counts.get('equal', 0)} | {counts.get('refused', 0)} |")
    others = {operator: counts for (operator, since), counts in sorted(by_operator.items()) if not since}
    refused = ", ".join(
        f"{operator} {sum(others[operator].values())}" for operator in sorted(others.keys() - AT_IMPORT)
    )
    return "\n".join([START, *HEAD, *rows, "", f"Of operators that are not read: {refused}.", END])


def main() -> None:
    tally = Tally()
    for case in onnx_suite.cases():
        tally.add(case, onnx_suite.run(case).verdict)
    text = PAGE.read_text()
    PAGE.write_text(text.split(START)[0] + table(tally.by_operator) + text.split(END)[1])
    print(dict(tally.verdicts))


if __name__ == "__main__":
    sys.exit(main())
