"""Places of a plane as people write them: a pixel, a box, a mask; and what they weigh every position with.

A plane is whatever a layer has behind its channels: [L] of a sequence, [h, w] of an image, [t, h, w] of a volume. All
coordinates are positions of that plane, counted from 0, row before column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError, ShapeError
from ..interop import Array, to_tensor

Numbers = Sequence[int] | Sequence[Any] | Array
Place = Numbers
"""A pixel (row, column), a box (top, left, bottom, right), or an array with a weight for every position."""


@dataclass(frozen=True)
class Region:
    """One place, or several in leading axes."""

    kind: str
    """"pixel", "box" or "mask": the argument that errors name."""
    numbers: torch.Tensor
    """Pixels int64 [..., rank]; boxes int64 [..., 2 * rank], the first corner and the one behind the last position; a
    mask [..., *plane]."""

    def weights(self, plane: Sequence[int]) -> torch.Tensor:
        """The weight of every position, [..., *plane]: 1 within a pixel or box and 0 elsewhere, or those of the mask.

        Raises InputError for a place outside of the plane, ShapeError where it has other axes than the plane.
        """
        plane, rank = tuple(plane), len(plane)
        if self.kind == "mask":
            if rank == 0 or tuple(self.numbers.shape[-rank:]) != plane:
                raise ShapeError(f"mask has shape {list(self.numbers.shape)}, wanted {list(plane)}, the layer's plane")
            return self.numbers
        wanted = rank if self.kind == "pixel" else 2 * rank
        if rank == 0 or self.numbers.shape[-1] != wanted:
            got = f"{self.kind} of {self.numbers.shape[-1]} numbers"
            raise ShapeError(f"{got}, wanted {wanted} for the layer's plane {list(plane)}")
        first = self.numbers[..., :rank]
        end = first + 1 if self.kind == "pixel" else self.numbers[..., rank:]
        size = torch.tensor(plane)
        outside = (first < 0) | (end > size) | (end <= first)
        if bool(outside.any()):
            bad = self.numbers.reshape(-1, wanted)[int(outside.any(-1).flatten().long().argmax())].tolist()
            raise InputError(f"{self.kind}={tuple(bad)}: wanted one within the layer's plane {list(plane)}")
        inside = torch.ones(*self.numbers.shape[:-1], *plane, dtype=torch.bool)
        for axis, length in enumerate(plane):
            at = torch.arange(length)
            along = (at >= first[..., axis, None]) & (at < end[..., axis, None])
            inside = inside & along.reshape(*along.shape[:-1], *[length if i == axis else 1 for i in range(rank)])
        return inside.to(torch.float64)


def region_of(pixel: Numbers | None = None, box: Numbers | None = None, mask: Array | None = None) -> Region | None:
    """The place that one of the arguments says, None where none does. Raises InputError."""
    named = {"pixel": pixel, "box": box, "mask": mask}
    asked = [name for name, value in named.items() if value is not None]
    if len(asked) > 1:
        raise InputError(f"got {' and '.join(f'{name}=' for name in asked)}; wanted one of pixel=, box= and mask=")
    if not asked:
        return None
    (kind,) = asked
    numbers = _tensor(kind, named[kind])
    return Region(kind, _weights(numbers) if kind == "mask" else _positions(kind, numbers))


def region_at(place: Place, plane: Sequence[int]) -> Region:
    """The place that a call means by `place`: whole numbers in a tuple or list are a pixel or a box by their count, an
    array is a mask. Raises InputError."""
    if isinstance(place, (tuple, list)) and all(isinstance(n, int) for n in place):
        counts = {len(plane): "pixel", 2 * len(plane): "box"}
        if len(place) not in counts:
            wanted = " or ".join(f"{count} ({kind})" for count, kind in counts.items())
            raise InputError(f"place={tuple(place)}: wanted {wanted} numbers on the layer's plane {list(plane)}")
        kind = counts[len(place)]
        return Region(kind, _positions(kind, torch.tensor(place)))
    return Region("mask", _weights(_tensor("place", place)))


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        return to_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError, BufferError):
        raise InputError(f"{name}={value!r}: wanted numbers, in a tuple or an array") from None


def _positions(kind: str, numbers: torch.Tensor) -> torch.Tensor:
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool or numbers.dim() == 0:
        raise InputError(f"{kind} is {numbers.dtype} {list(numbers.shape)}, wanted whole numbers, one for each axis")
    return numbers.to("cpu", torch.int64)


def _weights(mask: torch.Tensor) -> torch.Tensor:
    if mask.is_complex() or mask.dim() == 0:
        raise InputError(f"mask is {mask.dtype} {list(mask.shape)}, wanted a weight for every position of the plane")
    weights = mask.to(torch.float64)
    if weights.is_cpu and not bool(weights.isfinite().all()):
        raise InputError("mask holds NaN or infinite values")
    return weights
