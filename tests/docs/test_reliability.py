"""Every promise of docs/reliability.md names a test that exists."""

from __future__ import annotations

import re

from support import paths

PAGE = (paths.TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


def test_each_named_test_exists() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in paths.TESTS.rglob("test_*.py")}
    missing = [f"{file}::{name}" for file, name in NAMED if f"def {name}(" not in files.get(file, "")]
    assert not missing and len(NAMED) > 30


def test_each_promise_names_a_test() -> None:
    promises = PAGE.partition("## Fuzzing")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert rows and all(re.search(r"::test_", row) for row in rows)
