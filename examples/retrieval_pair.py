"""What do two pictures have in common? The similarity of their embeddings, carried down into one of them."""

from __future__ import annotations

import torch
from shapes import DISC, SQUARE, scenes, share_on, trained
from torch import nn

import ebp_cuda


def parts(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scenes of both shapes with the class of every pixel, and the same scenes with the square, or the disc, alone."""
    pictures, labels, _ = scenes(count, seed)
    only = [pictures * (labels != other)[:, None] for other in (DISC, SQUARE)]
    return pictures, labels, only[0], only[1]


def loss(network: nn.Module, step: int) -> torch.Tensor:
    """A scene's embedding is near to those of its parts, and these far from each other."""
    both, _, square, disc = parts(16, step)
    a, b, c = (nn.functional.normalize(network(x)) for x in (both, square, disc))
    return 2 - (a * b).sum(1).mean() - (a * c).sum(1).mean() + (b * c).sum(1).abs().mean()


torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    *(nn.Flatten(), nn.Linear(16, 16), nn.ReLU()),
)
network = trained(network, loss)
x, labels, square, disc = parts(4, seed=1000)
with torch.no_grad():
    mates = {"square": (SQUARE, network(square)), "disc": (DISC, network(disc))}

eb = ebp_cuda.ExcitationBackprop(network, layer="2", rules="conserving", example=x)
for name, other in (("square", "disc"), ("disc", "square")):
    (index, mate), (_, nonmate) = mates[name], mates[other]
    like = eb.attribute(x, similarity_to=mate[:, None])  # [N, 1, features]: a mate for each image
    rather = eb.attribute(x, similarity_to=mate[:, None], contrast="versus", other=nonmate[:, None])
    alone, against = (share_on(maps[:, 0], labels, index).mean() for maps in (like, rather))
    print(f"like a {name}: {alone:.0%} of the relevance on it; rather than like a {other}: {against:.0%}")
