"""Reading and preprocessing an image, whatever is wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EBPError, ShapeError
from ..images.photo import EXACT, Decoding
from ..images.preprocess import Preprocess
from .photos import picture_of_pixels, read_input
from .places import Item, index_name


@dataclass(frozen=True)
class Decoded:
    """One image made ready, or why it could not be."""

    row: int
    """Its number in the shard."""
    name: str
    target: str | None = None
    x: npt.NDArray[np.float32] | None = None
    """[C, H, W]"""
    picture: npt.NDArray[np.uint8] | npt.NDArray[np.float32] | None = None
    """For an overlay: [H, W, 3], uint8 or float in 0..1."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels, as the photo has them."""
    content: str | None = None
    """sha256 of the bytes that were read."""
    error: str | None = None

    @classmethod
    def failed(cls, row: int, item: Item, error: str) -> Decoded:
        """An image that could not be read, and why."""
        return cls(row, item.name, item.target, error=index_name(error))


@dataclass(frozen=True)
class Chunk:
    """Images of one shard that travel together: a few rows from `first` on."""

    shard: int
    first: int
    items: tuple[Item, ...]
    last: bool
    """Whether the shard ends with them."""


@dataclass(frozen=True)
class Decoder:
    """Decodes one image after another; what a decoding process holds."""

    how: Preprocess
    pictures: bool = False
    decoding: Decoding = EXACT

    def decode(self, row: int, item: Item) -> Decoded:
        """The image. Never raises: one that cannot be read becomes its error message."""
        content: str | None = None
        try:
            data = item.place.read()
            content = content_digest(data)
            if isinstance(data, np.ndarray):
                image = picture_of_pixels(data, self.how, pictures=self.pictures)
            else:
                image = read_input(item.name, self.how, data=data, pictures=self.pictures, decoding=self.decoding)
            if len(image.x) != 1:
                raise ShapeError(f"{item.name}: one image [C, H, W] was wanted, got {list(image.x.shape)}")
            picture = image.pictures[0] if image.pictures else None
            decoded = Decoded(row, item.name, item.target, image.x[0].numpy(), picture, image.size)
        except EBPError as error:
            decoded = Decoded.failed(row, item, str(error))
        except BaseException as error:  # a broken file can bring anything out of a decoder, and costs one row
            decoded = Decoded.failed(row, item, f"{item.name}: {type(error).__name__}: {error}")
        return replace(decoded, content=content)


def content_digest(data: bytes | npt.NDArray[Any]) -> str:
    """sha256 of what was read of an image; of an array with its shape and dtype."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256(f"{data.dtype} {data.shape}".encode())
    digest.update(np.ascontiguousarray(data).data)
    return digest.hexdigest()
