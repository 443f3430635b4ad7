"""Dropout of the units that a class needs most, by one sweep a step (Zunino et al., Excitation Dropout, 2018).

A unit with the share p of the class's relevance is kept with the probability that the paper's equation gives: the base
probability for the average unit, 1 for a unit without relevance, and less the more the class rests on it.
"""

from __future__ import annotations

import torch
from shapes import scenes
from torch import nn

import ebp_cuda


class ExcitationDropout(nn.Module):
    """Drops units by the relevance that `relevance` was set to for this step; passes on everything in evaluation mode,
    which is also how ebp_cuda reads the network."""

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__()
        self.keep, self.relevance, self.dropped = keep, torch.empty(0), 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        count, drop = x[0].numel(), 1 - self.keep
        p = self.relevance
        keep = 1 - drop * (count - 1) * p / ((drop * count - 1) * p + self.keep)
        kept = torch.rand_like(keep) < keep
        self.dropped = float((p * ~kept).flatten(1).sum(1).mean())
        return x * kept / self.keep


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes, and whether the square lies left of the disc."""
    pictures, _, centres = scenes(32, seed)
    return pictures, (centres[:, 0, 1] < centres[:, 1, 1]).long()


torch.manual_seed(0)
dropout = ExcitationDropout()
network = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()),
    *(nn.Linear(512, 64), nn.ReLU(), dropout, nn.Linear(64, 2)),
)
optimizer = torch.optim.Adam(network.parameters(), 3e-3)
x, y = batch(0)
# It shares the network's weights, so every call sees what the last step has made of them.
eb = ebp_cuda.ExcitationBackprop(network, layer="5", rules="conserving", example=x)
for step in range(60):
    x, y = batch(step)
    dropout.relevance = eb.relevance(x, y)[:, 0]  # of the true class, at every unit of layer 5: [N, 64], sums to 1
    optimizer.zero_grad()
    nn.functional.cross_entropy(network.train()(x), y).backward()
    optimizer.step()

x, y = batch(1000)
right = (network.eval()(x).argmax(1) == y).float().mean()
print(f"right after 60 steps: {right:.0%}; the units dropped last held {dropout.dropped:.0%} of the relevance")
