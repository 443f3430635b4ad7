"""A small network of torch layers, and a method on it, for tests that need no particular network."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop
from ebp_cuda.net import Net

LAYER, CONTRAST = "features.2", "features.4"


class Small(nn.Module):
    """Two convolutions, a pool with overlapping windows, a classifier of five."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(6, 8, 3), nn.ReLU()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


@cache
def small() -> Net:
    torch.manual_seed(3)
    return ebp_cuda.from_torch(Small().eval(), images(2))


def images(count: int, seed: int = 0, size: tuple[int, int] = (12, 14)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def method(net: Net | None = None, **options) -> ExcitationBackprop:
    return ExcitationBackprop(net or small(), LAYER, CONTRAST, **{"rules": "caffe", **options})


def warm(eb: ExcitationBackprop, x: torch.Tensor, target) -> None:
    for _ in range(2):
        eb.run(x, target)
