"""Pictures of a square and a disc, and networks trained on them in seconds, for examples that need no download."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SIZE = 32
BACKGROUND, SQUARE, DISC = range(3)


def scenes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures [N, 3, 32, 32], the class of every pixel [N, 32, 32], and the centres (row, column) [N, 2, 2] of the
    square and the disc, which lie in halves of their own."""
    draw = torch.Generator().manual_seed(seed)
    pictures = 0.3 * torch.rand(count, 3, SIZE, SIZE, generator=draw)
    rows = torch.randint(6, SIZE - 6, (count, 2), generator=draw)
    columns = torch.randint(6, 11, (count, 2), generator=draw) + torch.tensor([0, SIZE // 2])
    columns = torch.where(torch.rand(count, 1, generator=draw) < 0.5, columns, columns.flip(1))
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    far_down = (torch.arange(SIZE)[:, None] - rows[:, :, None, None]).abs()
    far_right = (torch.arange(SIZE) - columns[:, :, None, None]).abs()
    labels[(torch.maximum(far_down, far_right) <= 4)[:, 0]] = SQUARE
    labels[(far_down**2 + far_right**2 <= 20)[:, 1]] = DISC
    for index, color in ((SQUARE, (0.9, 0.5, 0.2)), (DISC, (0.2, 0.5, 0.9))):
        pictures += (labels == index)[:, None] * torch.tensor(color)[None, :, None, None]
    return pictures, labels, torch.stack([rows, columns], 2)


def trained(network: nn.Module, loss: Callable[[nn.Module, int], torch.Tensor], steps: int = 120) -> nn.Module:
    """The network after so many steps on the loss of a batch, which is told their number."""
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss(network, step).backward()
        optimizer.step()
    return network.eval()


def share_on(maps: torch.Tensor, labels: torch.Tensor, index: int) -> torch.Tensor:
    """How much of the positive relevance of maps [N, h, w] lies on a class's pixels, [N]."""
    there = nn.functional.interpolate((labels == index)[:, None].float(), maps.shape[1:], mode="area")[:, 0]
    positive = maps.clamp(min=0)
    return (positive * (there > 0)).sum((1, 2)) / positive.sum((1, 2))
