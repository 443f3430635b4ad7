"""Writes the table of operations in docs/models.md: PYTHONPATH=tests python -m support.vocabulary_table

test_vocabulary.py asks for the same rows, so that the table cannot say what is no longer so.
"""

from __future__ import annotations

import sys

from ebp_cuda.rules import OPERATIONS, RULE_SETS
from ebp_cuda.vocabulary import SIGNATURES, Signature
from support import paths

PAGE = paths.ROOT / "docs" / "models.md"
START, END = "<!-- table: PYTHONPATH=tests python -m support.vocabulary_table -->", "<!-- end of operations -->"


def row(signature: Signature) -> str:
    rules = OPERATIONS[signature.op].rules
    kinds = [rules[name].kind if name in rules else "none" for name in RULE_SETS]
    attributes = "; ".join(map(str, signature.attributes))
    parameters = "; ".join(map(str, signature.parameters))
    cells = [f"`{signature.op}`", signature.summary, attributes, parameters, *kinds]
    return "| " + " | ".join(cell.replace("|", "\\|") or " " for cell in cells) + " |"


def table() -> str:
    head = ["operation", "computes", "attributes", "parameters", *(f'rule in "{name}"' for name in RULE_SETS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    own = [signature for op, signature in SIGNATURES.items() if "::" not in op]
    return "\n".join([START, *lines, *map(row, own), END])


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(text.split(START)[0] + table() + text.split(END)[1])


if __name__ == "__main__":
    sys.exit(main())
