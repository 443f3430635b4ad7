"""Rules are equations: which device computes them, and how its memory is laid out, is known below (law 8)."""

from __future__ import annotations

import ast
import re

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "ebp_cuda"
DEVICE = re.compile(r"is_cuda|is_cpu|tiles|amx|onednn|channels_last|memory_format|\.device\.type|avx", re.IGNORECASE)
PLACES = {"capture.py": "CUDA graphs are of a device by nature"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "rules").glob("*.py")), ids=lambda path: path.name)
def test_no_rule_knows_a_device(path) -> None:
    assert DEVICE.findall(path.read_text()) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").glob("*.py")), ids=lambda path: path.name)
def test_the_engine_knows_a_device_only_where_it_places_tensors_and_records(path) -> None:
    if path.name in PLACES:
        return
    source = path.read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    placing = [node for node in functions if (path.name, node.name) == ("plan.py", "place")]
    lines = source.splitlines()
    for node in placing:
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    assert DEVICE.findall("\n".join(lines)) == []


def test_the_rule_of_a_convolution_is_its_equation() -> None:
    """Six lines: x, L+, z, r, and the product."""
    tree = ast.parse((PACKAGE / "rules" / "contraction.py").read_text())
    (rule,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "share_excitation")
    assert len(rule.body) <= 6 and "eq. 4 and 5" in (ast.get_docstring(rule) or "")
