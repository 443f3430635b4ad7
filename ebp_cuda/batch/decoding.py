"""Reading and preprocessing an image, whatever is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import EBPError, ShapeError
from ..images.preprocess import Preprocess, prepare
from .photos import read_input
from .places import Item


@dataclass(frozen=True)
class Decoded:
    """One image made ready, or why it could not be."""

    row: int
    """Its number in the shard."""
    name: str
    target: str | None = None
    x: npt.NDArray[np.float32] | None = None
    """[C, H, W]"""
    picture: npt.NDArray[np.float32] | None = None
    """For an overlay: [H, W, 3] in 0..1."""
    error: str | None = None


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

    def decode(self, row: int, item: Item) -> Decoded:
        """Never raises: an image that cannot be read becomes its error message."""
        decoded = Decoded(row, item.name, item.target)
        try:
            content = item.place.read()
            if isinstance(content, np.ndarray):
                seen = prepare(content, Preprocess())[0].numpy().transpose(1, 2, 0) if self.pictures else None
                return replace(decoded, x=prepare(content, self.how)[0].numpy(), picture=seen)
            x, pictures = read_input(item.name, self.how, data=content, pictures=self.pictures)
            if len(x) != 1:
                raise ShapeError(f"{item.name}: one image [C, H, W] was wanted, got {list(x.shape)}")
            return replace(decoded, x=x[0].numpy(), picture=pictures[0] if pictures else None)
        except EBPError as error:
            return replace(decoded, error=str(error))
        except Exception as error:  # a broken file can bring anything out of a decoder, and costs one row
            return replace(decoded, error=f"{item.name}: {type(error).__name__}: {error}")
