"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
"""What the original Caffe code measured."""
TOOLS = ROOT / "tools"
EXAMPLES = ROOT / "examples"
