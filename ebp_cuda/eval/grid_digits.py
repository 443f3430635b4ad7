"""Tiles for the digits network: scenes of one handwritten digit that training never showed."""

from __future__ import annotations

import numpy as np

from ..images.preprocess import Preprocess, prepare
from ..net import Net
from .grid import Tile

PER_CLASS = 24


def digit_tiles(net: Net, how: Preprocess, side: int, confidence: float, seed: int) -> list[Tile]:
    """Tiles of side x side pixels whose one digit the network, shown the tile alone, names with that confidence.

    The network has one input size, so a tile alone is a tile in the corner of a gray image of that size. The "photo"
    of a tile is the handwritten digit it shows, by its index in scikit-learn's digits.
    """
    from ..models import digits

    tiles: list[Tile] = []
    count = dict.fromkeys(range(len(digits.LABELS)), 0)
    top = net.default_top()
    for index in range(20 * PER_CLASS * len(count)):
        scene = digits.scenes.make_scene("test", seed, index, count=1, size=side)
        (digit,) = scene.digits
        if count[digit.label] == PER_CLASS:
            continue
        image = scene.image.astype(np.float32) / np.float32(255)
        alone = np.full((digits.scenes.SIZE, digits.scenes.SIZE, 3), image.mean(), np.float32)
        alone[:side, :side] = image
        scores = net.forward(prepare([alone], how), outputs=[top])[top]
        probability = scores.flatten(1).softmax(1)[0]
        if int(probability.argmax()) == digit.label and float(probability[digit.label]) >= confidence:
            tiles.append(Tile(f"digit {digit.source}", digit.label, image))
            count[digit.label] += 1
        if min(count.values()) == PER_CLASS:
            break
    return tiles
