"""Photos for the grid pointing game, and tiles cut from them: photos that installed packages ship, or one's own."""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from ..errors import InputError
from ..images.preprocess import Preprocess, load_image, prepare
from ..net import Net
from .grid import Image, Tile

SHIPPED = {
    "skimage": ("data", "astronaut.png brick.png camera.png chelsea.png chessboard_RGB.png clock_motion.png coffee.png"
                " coins.png color.png horse.png ihc.png moon.png motorcycle_left.png page.png phantom.png text.png"
                " hubble_deep_field.jpg retina.jpg rocket.jpg"),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
    "matplotlib": ("mpl-data/sample_data", "grace_hopper.jpg"),
}  # fmt: skip
"""Package -> folder and names of the pictures that it installs."""

CROP = (0.6, 1.0)
"""The side of a crop, as a part of the photo's shorter side."""


@dataclass(frozen=True)
class LabeledPhoto:
    """A picture on disk, and what it shows where that is known."""

    name: str
    path: Path
    label: int | None = None
    """The network's output; None: the class that the network itself is sure about in each crop."""


def shipped_photos() -> list[LabeledPhoto]:
    """The photos that scikit-image, scikit-learn and matplotlib install.

    Raises:
        InputError: where fewer than 16 are installed.
    """
    photos = []
    for package, (folder, names) in SHIPPED.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            home = Path(spec.origin).parent / folder
            photos += [LabeledPhoto(name, home / name) for name in names.split() if (home / name).is_file()]
    if len(photos) < 16:
        raise InputError(
            f"eval grid: {len(photos)} photos are installed, 16 or more are needed: pip install 'ebp_cuda[demo]', "
            "or give --photos"
        )
    return photos


def read_photos(source: Path, labels: Sequence[str] | None) -> list[LabeledPhoto]:
    """Photos of one's own: a folder with a subfolder for each class, or a .csv with columns "image" and "label".

    Args:
        source: the folder or the list. Paths in a list are relative to it.
        labels: names of the network's classes; a subfolder or a label is one of them, or a number.

    Raises:
        InputError: for a class that the network does not know, or nothing to read.
    """
    if source.is_dir():
        pairs = [(path, path.parent.name) for path in sorted(source.glob("*/*")) if path.is_file()]
    else:
        pairs = list(_listed(source))
    if not pairs:
        raise InputError(f"--photos {source}: no photos; wanted a folder of class folders, or a .csv with image,label")
    return [LabeledPhoto(str(path), path, _class_of(label, labels, path)) for path, label in pairs]


def _listed(source: Path) -> Iterator[tuple[Path, str]]:
    try:
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--photos {source}: cannot be read: {error}") from error
    for number, row in enumerate(rows, 2):
        if not row.get("image") or not row.get("label"):
            raise InputError(f"--photos {source}, line {number}: wanted the columns image and label")
        yield source.parent / row["image"], row["label"]


def _class_of(label: str, labels: Sequence[str] | None, path: Path) -> int:
    if label.isdigit():
        return int(label)
    names = [name.split(",")[0].strip().casefold() for name in labels or ()]
    if label.casefold() not in names:
        raise InputError(f"--photos: {path}: the network has no class '{label}'")
    return names.index(label.casefold())


def crops(photo: Image, side: int, count: int, random: np.random.Generator) -> Iterator[Image]:
    """Random square crops of a photo [H, W, 3], half of them mirrored, each brought to side x side pixels."""
    height, width = photo.shape[:2]
    for _ in range(count):
        edge = max(1, int(min(height, width) * random.uniform(*CROP)))
        top, left = random.integers(height - edge + 1), random.integers(width - edge + 1)
        crop = photo[top : top + edge, left : left + edge]
        crop = crop[:, ::-1] if random.random() < 0.5 else crop
        picture = PillowImage.fromarray((crop * 255).round().astype(np.uint8))
        resized = picture.resize((side, side), PillowImage.Resampling.BICUBIC)
        yield np.asarray(resized, np.float32) / np.float32(255)


def cut_tiles(
    photos: Iterable[LabeledPhoto],
    net: Net,
    how: Preprocess,
    side: int,
    *,
    per_photo: int = 12,
    confidence: float = 0.3,
    seed: int = 0,
) -> list[Tile]:
    """Crops of the photos that the network, shown each alone at its size in the mosaic, is sure about.

    Args:
        photos: what to cut from.
        net: the network; it must take side x side pixels.
        how: how an image becomes its input.
        side: pixels of a tile.
        per_photo: crops to try.
        confidence: the least probability (softmax of the scores) of the best class.
        seed: of the crops.

    Returns:
        The tiles, in the order of the photos; of each photo those of one class: its label, or else the class that the
        network is sure about in most of its crops.
    """
    tiles: list[Tile] = []
    top = net.default_top()
    for index, photo in enumerate(photos):
        random = np.random.default_rng((seed, index))
        images = list(crops(load_image(photo.path), side, per_photo, random))
        scores = net.forward(prepare(images, how.override(size=(side, side), shortest_side=None)), outputs=[top])[top]
        best = scores.flatten(2).mean(2) if scores.dim() > 2 else scores
        probability, label = best.softmax(1).max(1)
        sure = [
            Tile(photo.name, number, image)
            for image, p, number in zip(images, probability.tolist(), label.tolist(), strict=True)
            if p >= confidence
        ]
        classes = Counter(tile.label for tile in sure).most_common(1)
        shown = photo.label if photo.label is not None or not classes else classes[0][0]
        tiles += [tile for tile in sure if tile.label == shown]
    return tiles


def prepared(images: Sequence[Image], how: Preprocess) -> torch.Tensor:
    """Mosaics [N, C, h, w] as the network reads them, at their own size."""
    size = images[0].shape[:2]
    return prepare(list(images), how.override(size=size, shortest_side=None))
