"""Rows of an axis picked by a list, and what the picked rows hold collected where they came from: both gather."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from ..ops.host_sync import synchronized


@lru_cache(maxsize=256)  # sent once, and not at every pass
def _placed(indices: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return synchronized(torch.tensor(indices, device=device))


@lru_cache(maxsize=256)
def _places(rows: tuple[int, ...], size: int) -> tuple[tuple[int, ...], int]:
    """For each of `size` rows where its copies lie, filled up with the place behind the last; and how many for each."""
    own: list[list[int]] = [[] for _ in range(size)]
    for place, row in enumerate(rows):
        own[row].append(place)
    most = max(1, *map(len, own))
    return tuple(place for places in own for place in [*places, *[len(rows)] * (most - len(places))]), most


def picked(x: torch.Tensor, rows: Sequence[int], axis: int) -> torch.Tensor:
    """`x` with the given rows of an axis, in that order; negative ones count from the end."""
    return x.index_select(axis, _placed(_counted(rows, x.shape[axis]), x.device))


def collected(p: torch.Tensor, rows: Sequence[int], size: int, axis: int) -> torch.Tensor:
    """The adjoint of `picked`: what the copies of a row hold together, and 0 where there is none."""
    places, most = _places(_counted(rows, size), size)
    nothing = p.new_zeros(1).expand(*p.shape[:axis], 1, *p.shape[axis + 1 :])
    copies = torch.cat([p, nothing], axis).index_select(axis, _placed(places, p.device))
    return copies.unflatten(axis, (size, most)).sum(axis + 1)


def _counted(rows: Sequence[int], size: int) -> tuple[int, ...]:
    return tuple(row % size if row < 0 else row for row in rows)
