"""How pictures become batches of network inputs: their size as in the original evaluation, and who goes with whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ebp_cuda
from ebp_cuda.errors import InputError
from ebp_cuda.eval.datasets.base import Picture
from ebp_cuda.eval.inputs import batches, network_size, photo
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.net import Net


def free() -> Net:
    """A network of any input size."""
    net = ebp_cuda.from_torch(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 8, 8))
    net.graph.inputs = dict.fromkeys(net.graph.inputs, (None, 3, None, None))
    return net


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((375, 500), (224, 298)),  # 298.67 is rounded down, as the original does
        ((500, 375), (298, 224)),
        ((224, 224), (224, 224)),
        ((100, 333), (224, 745)),
        ((333, 333), (224, 224)),
        ((427, 640), (224, 335)),
        ((207, 414), (224, 448)),  # exact, where dividing first would fall below
    ],
)
def test_the_shorter_side_is_exact_and_the_longer_rounded_down(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert network_size(Preprocess(shortest_side=224), free(), size) == wanted


def test_sizes_of_the_network_and_of_the_user() -> None:
    fixed = ebp_cuda.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), torch.zeros(1, 3, 8, 8))
    assert network_size(Preprocess(shortest_side=224), fixed, (50, 60)) == (8, 8)
    assert network_size(Preprocess(size=(30, 40)), free(), (50, 60)) == (30, 40)
    assert network_size(Preprocess(), free(), (50, 60)) == (50, 60)


def test_a_photo_has_the_size_and_the_pixels_that_were_annotated(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image, path = Image.fromarray(values), tmp_path / "a.png"
    exif = image.getexif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    image.save(path, exif=exif)
    assert np.array_equal(photo(Picture("a", path, (20, 30), ())), values.astype(np.float32) / 255)
    assert photo(Picture("a", path, (40, 60), ())).shape == (40, 60, 3)
    with pytest.raises(InputError, match=r"a\.png is 30 x 20 pixels and annotated as 20 x 30"):
        photo(Picture("a", path, (30, 20), ()))


def test_a_batch_holds_one_key_and_every_item_once() -> None:
    items = [(index, index % 3) for index in range(50)]
    found = list(batches(items, lambda item: item[1], 4, window=2))
    assert sorted(item for batch in found for item in batch) == items
    assert all(len(batch) <= 4 and len({key for _, key in batch}) == 1 for batch in found)
    assert found == list(batches(iter(items), lambda item: item[1], 4, window=2))
    # nothing waits for longer than the window of 8 items
    done = [max(index for index, _ in batch) for batch in found]
    assert all(last <= 8 * (sum(map(len, found[:place])) // 8 + 1) for place, last in enumerate(done))
