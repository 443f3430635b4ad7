"""Writes the table of chosen layers in docs/models.md: PYTHONPATH=tests python -m support.choice_table

What `ExcitationBackprop` chooses for every architecture of zoo_networks.py at the size that it is published for.
test_zoo_choices.py asks for the same rows.
"""

from __future__ import annotations

import sys
import warnings

import torch

import ebp_cuda
from support import paths
from support.zoo_networks import TIMM, TORCHVISION, VIDEO, built

PAGE = paths.ROOT / "docs" / "models.md"
START, END = "<!-- table: PYTHONPATH=tests python -m support.choice_table -->", "<!-- end of choices -->"
NETWORKS = {**TORCHVISION, **VIDEO, **TIMM}


def shape_of(name: str) -> tuple[int, ...]:
    return (3, 8, 112, 112) if name in VIDEO else (3, 299, 299) if name == "Inception v3" else (3, 224, 224)


def row(name: str) -> str:
    net = ebp_cuda.from_torch(built(NETWORKS[name]), torch.zeros(1, *shape_of(name)))
    setting = ebp_cuda.ExcitationBackprop(net).setting
    (place,) = (place for place in net.candidates() if place.layer == setting.layer)
    plane = "x".join(map(str, place.plane))
    return f"| {name} | `{place.layer}` | {plane} | {place.depth:.0%} | `{setting.contrast_layer}` |"


def table(lines: list[str]) -> str:
    head = ["| architecture | layer | plane | depth | contrast |", "|---|---|---|---|---|"]
    return "\n".join([START, *head, *lines, END])


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = [row(name) for name in NETWORKS]
    text = PAGE.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(before + table(lines) + after)


if __name__ == "__main__":
    sys.exit(main())
