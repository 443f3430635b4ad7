"""The grid pointing game: mosaics of tiles whose class is known, and how much of a map lies in the right cell.

Definition (GridPG): M. Böhle, M. Fritz, B. Schiele, "Convolutional Dynamic Alignment Networks for Interpretable
Classifications", CVPR 2021; S. Rao, M. Böhle, B. Schiele, "Towards Better Understanding Attribution Methods",
CVPR 2022.
With A+ the positive part of a map at the size of the mosaic, the score of a cell is

    sum of A+ in the cell / sum of A+ in the mosaic

so chance is 1 / cells. Beside it: whether the maximum of the map lies in the cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..images.maps import resize_maps

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A crop of a photo that the network, shown nothing else, is sure about."""

    photo: str
    """Name of the photo it was cut from."""
    label: int
    """The network's output for its class."""
    image: Image
    """float32 [side, side, 3] in 0..1, RGB."""


@dataclass(frozen=True)
class Mosaic:
    """cells x cells tiles of different classes, row by row."""

    name: str
    cells: int
    tiles: tuple[Tile, ...]

    @property
    def image(self) -> Image:
        """float32 [cells * side, cells * side, 3] in 0..1."""
        rows = [self.tiles[start : start + self.cells] for start in range(0, len(self.tiles), self.cells)]
        return np.concatenate([np.concatenate([tile.image for tile in row], 1) for row in rows], 0)

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each tile."""
        return tuple(tile.label for tile in self.tiles)


def draw_mosaics(tiles: Sequence[Tile], cells: int, count: int, seed: int) -> Iterator[Mosaic]:
    """`count` mosaics of cells x cells tiles, each class as often as the others.

    Two tiles of one photo, or of one class, never meet in a mosaic.

    Args:
        tiles: what to draw from.
        cells: tiles on a side.
        count: how many mosaics.
        seed: the same seed gives the same mosaics.

    Raises:
        InputError: where there are fewer classes, of different photos, than cells.
    """
    by_label: dict[int, list[Tile]] = {}
    for tile in tiles:
        by_label.setdefault(tile.label, []).append(tile)
    wanted = cells * cells
    if len(by_label) < wanted:
        raise InputError(
            f"eval grid: the photos give {len(by_label)} classes that the network is sure about; a mosaic of "
            f"{cells} x {cells} needs {wanted}"
        )
    random = np.random.default_rng(seed)
    used = dict.fromkeys(by_label, 0)
    for number in range(count):
        chosen = _one_of_each(by_label, used, wanted, random)
        order = random.permutation(wanted)
        yield Mosaic(f"mosaic-{number:05d}", cells, tuple(chosen[place] for place in order))


def _one_of_each(
    by_label: dict[int, list[Tile]], used: dict[int, int], wanted: int, random: np.random.Generator
) -> list[Tile]:
    """Tiles of `wanted` classes and photos: classes that were used least come first, ties by chance."""
    labels = list(by_label)
    random.shuffle(labels)
    labels.sort(key=lambda label: used[label])  # stable: the shuffle decides among equals
    chosen: list[Tile] = []
    for label in labels:
        taken = {tile.photo for tile in chosen}
        free = [tile for tile in by_label[label] if tile.photo not in taken]
        if free and len(chosen) < wanted:
            chosen.append(free[random.integers(len(free))])
            used[label] += 1
    if len(chosen) < wanted:
        raise InputError(
            f"eval grid: only {len(chosen)} tiles of different photos and classes fit into one mosaic; {wanted} are "
            "needed: give more photos"
        )
    return chosen


@dataclass(frozen=True)
class Placement:
    """Where a map of one class lies in a mosaic."""

    mass: float
    """The share of the positive map in the right cell; chance is 1 / cells. 1 / cells, too, for a map without any."""
    hit: bool
    """Whether the maximum lies in the right cell."""
    row: int
    column: int
    """Of the maximum, in pixels of the mosaic."""


def place(attribution: torch.Tensor, cell: int, cells: int, size: int) -> Placement:
    """Judges a map [h, w] of the class in cell number `cell` (row by row) of a mosaic of size x size pixels.

    The map is brought to the size of the mosaic (bilinear) before it is cut into cells, as in the publication.
    """
    positive = resize_maps(attribution.float(), (size, size), "bilinear").clamp_min(0).double()
    side = size // cells
    row, column = divmod(cell, cells)
    inside = positive[row * side : (row + 1) * side, column * side : (column + 1) * side]
    total = float(positive.sum())
    best = int(positive.flatten().argmax())
    at = divmod(best, size)
    hit = total > 0 and (at[0] // side, at[1] // side) == (row, column)
    mass = float(inside.sum()) / total if total > 0 else 1 / cells**2
    return Placement(mass, hit, *at)


def standard_error(values: Sequence[float], groups: Sequence[object]) -> float:
    """The standard error of the mean of `values`, over groups that are independent of one another.

    Values of one group (the pairs of one mosaic, or of one photo) may depend on each other; so it is the deviation of
    the groups' sums of residuals that counts (a ratio estimator). NaN for fewer than two groups.
    """
    mean = float(np.mean(values))
    sums: dict[object, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        return float("nan")
    return float(np.sqrt(sum(part**2 for part in sums.values()) * count / (count - 1)) / len(values))
