"""Why does a UNet call this pixel a disc? One pixel of its output, carried down to the picture."""

from __future__ import annotations

import torch
from shapes import DISC, SQUARE, scenes, share_on, trained
from torch import nn

import ebp_cuda


class UNet(nn.Module):
    """Two levels, joined by a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2)
        self.head = nn.Sequential(nn.Conv2d(28, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shallow = self.down(x)
        return self.head(torch.cat([shallow, self.up(self.deep(shallow))], 1))


def loss(network: nn.Module, step: int) -> torch.Tensor:
    pictures, labels, _ = scenes(16, step)
    return nn.functional.cross_entropy(network(pictures), labels)


torch.manual_seed(0)
unet = trained(UNet(), loss)
x, labels, centres = scenes(4, seed=1000)
eb = ebp_cuda.ExcitationBackprop(unet, layer="down", rules="conserving", example=x)

# A place of its own for each image: [N, 1, 2]. The classes are those that the network gives these pixels.
for name, index, pixels in (("square", SQUARE, centres[:, :1]), ("disc", DISC, centres[:, 1:])):
    result = eb.run(x, "top1", pixel=pixels)
    right = int((result.targets[:, 0] == index).sum())
    share = share_on(result.maps[:, 0], labels, index).mean()
    print(f"the {name}'s centre: {right} of 4 pixels right, {share:.0%} of their relevance lies on it")

# Two pixels of one image are two columns of one sweep.
both = eb.attribute(x[:1], torch.tensor([[SQUARE, DISC]]), pixel=centres[:1])
print(f"maps of two pixels: {list(both.shape)}")
