"""Pictures of an evaluation as network inputs, in batches of one size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from ..batch.threads import prefetch
from ..errors import InputError
from ..images.preprocess import Array, Preprocess, load_image, prepare
from ..net import Net
from .datasets.base import Picture

Item = TypeVar("Item")

_AHEAD = 2
_SAME_SHAPE = 0.02
"""Aspect ratios that differ by no more are those of one picture at two resolutions."""


def network_size(how: Preprocess, net: Net, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which the network sees a picture of `size`.

    A network of one input size has that; `shortest_side` is exact and the other side rounded down, as the original
    evaluation and TorchRay do.
    """
    fixed = (*next(iter(net.graph.inputs.values())), None, None, None, None)[2:4]
    if fixed[0] and fixed[1]:
        return fixed[0], fixed[1]
    if how.shortest_side is not None:
        return size[0] * how.shortest_side // min(size), size[1] * how.shortest_side // min(size)
    return how.size or size


def photo(picture: Picture) -> Array:
    """The picture, float32 [H, W, 3] in 0..1, at the size that it was annotated at, its pixels as they are stored.

    A copy at another resolution is resized. Raises InputError for one of another shape.
    """
    image = load_image(picture.path, upright=False)
    height, width = image.shape[:2]
    if (height, width) == picture.size:
        return image
    if abs(height / width * picture.size[1] / picture.size[0] - 1) > _SAME_SHAPE:
        wanted = f"{picture.size[1]} x {picture.size[0]}"
        raise InputError(f"{picture.path} is {width} x {height} pixels and annotated as {wanted}")
    return Preprocess(size=picture.size).resize(image).astype(np.float32, copy=False)


def read(picture: Picture, how: Preprocess, net: Net) -> torch.Tensor:
    """The picture as the network sees it, float32 [1, C, h, w]. Raises InputError where it is not as annotated."""
    return prepare(photo(picture), how.override(size=network_size(how, net, picture.size)))


def read_ahead(
    groups: Iterable[Sequence[Item]], picture: Callable[[Item], Picture], how: Preprocess, net: Net
) -> Iterator[tuple[Sequence[Item], torch.Tensor]]:
    """(a batch, its inputs [N, C, h, w]); the next ones are read while this one is worked on."""

    def inputs() -> Generator[tuple[Sequence[Item], torch.Tensor], None, None]:
        for group in groups:
            yield group, torch.cat([read(picture(item), how, net) for item in group])

    return prefetch(inputs(), _AHEAD)


def batches(
    items: Iterable[Item],
    key: Callable[[Item], object],
    size: int,
    window: int = 8,
) -> Iterator[list[Item]]:
    """Lists of at most `size` items of the same key; items move by at most `window` batches.

    What is in a batch depends on the items alone. Keys are compared by equality.
    """
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= size * window:
            yield from _groups(waiting, key, size)
            waiting = []
    yield from _groups(waiting, key, size)


def _groups(items: Sequence[Item], key: Callable[[Item], object], size: int) -> Iterator[list[Item]]:
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]
