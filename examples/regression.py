"""Which pixels make the number that a regression gives? Its one output is class 0."""

from __future__ import annotations

import torch
from shapes import SIZE, SQUARE, scenes, share_on, trained
from torch import nn

import ebp_cuda


def loss(network: nn.Module, step: int) -> torch.Tensor:
    pictures, _, centres = scenes(16, step)
    return nn.functional.mse_loss(network(pictures)[:, 0], centres[:, 0, 1] / SIZE)


torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(4)),
    *(nn.Flatten(), nn.Linear(128, 1)),
)
network = trained(network, loss, steps=300)
x, labels, centres = scenes(8, seed=1000)
with torch.no_grad():
    error = (network(x)[:, 0] - centres[:, 0, 1] / SIZE).abs().mean()

eb = ebp_cuda.ExcitationBackprop(network, layer="2", rules="conserving", example=x)
share = share_on(eb.attribute(x, 0)[:, 0], labels, SQUARE)
area = (labels == SQUARE).float().mean()
print(f"the square's column: off by {error * SIZE:.1f} pixels of {SIZE}")
print(f"{share.mean():.0%} of the relevance of that number lies on the square, which covers {area:.0%} of the picture")
