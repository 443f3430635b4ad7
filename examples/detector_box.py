"""What did a detector see in this box? Its score before suppression: the graph is cut there by `top=`."""

from __future__ import annotations

import torch
from shapes import scenes, share_on, trained
from torch import nn

import ebp_cuda

CELL = 4


class Detector(nn.Module):
    """For every cell of 4 x 4 pixels the scores of two classes and a box, as one-stage detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.neck = nn.Sequential(nn.Conv2d(12, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.scores, self.boxes = nn.Conv2d(24, 2, 3, padding=1), nn.Conv2d(24, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.neck(self.body(x))
        return self.scores(features).sigmoid(), self.boxes(features)


def loss(network: nn.Module, step: int) -> torch.Tensor:
    pictures, _, centres = scenes(16, step)
    wanted = torch.zeros(16, 2, 8, 8)
    cells = centres // CELL
    for index in range(2):
        wanted[torch.arange(16), index, cells[:, index, 0], cells[:, index, 1]] = 1
    found, boxes = network(pictures)
    return nn.functional.binary_cross_entropy(found, wanted, 1 + 10 * wanted) + 0 * boxes.sum()


torch.manual_seed(0)
detector = trained(Detector(), loss)
x, labels, _ = scenes(4, seed=1000)
with torch.no_grad():
    scores, _ = detector(x)
best = scores.flatten(2).argmax(2)  # what suppression leaves of each class: a cell, and with it a box
cells = torch.stack([best // 8, best % 8], 2)

eb = ebp_cuda.ExcitationBackprop(detector, layer="body", top="scores", rules="conserving", example=x)
result = eb.run(x, torch.tensor([[0, 1]] * 4), pixel=cells)
for index, name in enumerate(("square", "disc")):
    share = share_on(result.maps[:, index], labels, index + 1).mean()
    print(f"the {name}'s box: {share:.0%} of the relevance of its score lies on it")
