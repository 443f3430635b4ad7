"""Writes the table of ONNX operators in docs/models.md: PYTHONPATH=tests python -m support.onnx_table

test_onnx_suite.py asks for the same rows, so that the table cannot say what is no longer so.
"""

from __future__ import annotations

import sys

from ebp_cuda.importers.onnx.call import CONVERTERS, Converter
from support import paths

PAGE = paths.ROOT / "docs" / "models.md"
START, END = "<!-- table: PYTHONPATH=tests python -m support.onnx_table -->", "<!-- end of operators -->"


def row(entry: Converter) -> str:
    limits = (entry.convert.__doc__ or "").split("\n")[0].rstrip(".")
    return f"| {entry.operator} | {entry.since} to {entry.until} | {limits} |"


def table() -> str:
    entries = [entry for ranges in CONVERTERS.values() for entry in ranges if "." not in entry.operator]
    rows = [row(entry) for entry in sorted(entries, key=lambda entry: (entry.operator, entry.since))]
    return "\n".join([START, "| operator | opsets | read |", "|---|---|---|", *rows, END])


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(text.split(START)[0] + table() + text.split(END)[1])


if __name__ == "__main__":
    sys.exit(main())
