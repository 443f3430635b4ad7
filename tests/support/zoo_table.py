"""Writes the table of architectures in docs/models.md from what they do: PYTHONPATH=tests python -m support.zoo_table

test_zoo.py asks for the same rows, so that the table cannot say what is no longer so.
"""

from __future__ import annotations

import sys
import warnings

import torch

import ebp_cuda
from support import paths
from support.zoo_networks import REFUSED, TIMM, TORCHVISION, VIDEO, built

PAGE = paths.ROOT / "docs" / "models.md"
START, END = "<!-- table: PYTHONPATH=tests python -m support.zoo_table -->", "<!-- end of table -->"
REASON = "attention multiplies activations with one another, and no rule shares that"


def row(name: str, family: str, count: int, ops: set[str]) -> str:
    special = ", ".join(sorted(ops - ORDINARY)) or " "
    return f"| {name} | {family} | {count} | {special} |"


ORDINARY = {
    "conv",
    "linear",
    "relu",
    "batch_norm",
    "max_pool",
    "avg_pool",
    "mean",
    "flatten",
    "sum",
    "concat",
    "identity",
}


def rows() -> list[str]:
    found = []
    for family, networks in (("torchvision", TORCHVISION), ("torchvision, video", VIDEO), ("timm", TIMM)):
        for name, make in networks.items():
            shape = (3, 4, 32, 32) if networks is VIDEO else (3, 75, 75) if name == "Inception v3" else (3, 64, 64)
            graph = ebp_cuda.from_torch(built(make), torch.rand(2, *shape)).graph
            found.append(row(name, family, len(graph.nodes), {node.op for node in graph.nodes}))
    return found


def table(lines: list[str]) -> str:
    head = ["| architecture | from | layers as tested | operations besides the ordinary ones |", "|---|---|---|---|"]
    refused = ["", "Refused:", "", "| architecture | reason |", "|---|---|"]
    return "\n".join([START, *head, *lines, *refused, *(f"| {name} | {REASON} |" for name in REFUSED), END])


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    text = PAGE.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(before + table(rows()) + after)


if __name__ == "__main__":
    sys.exit(main())
