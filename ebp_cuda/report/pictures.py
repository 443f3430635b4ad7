"""Thumbnails of a batch's maps: its overlays made small, or the maps alone where it wrote no overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from ..batch.output import Output
from ..batch.writing import picture_name
from ..files import atomic_path, open_regular, refused_unless_readable
from ..images.maps import heat
from ..images.photo import open_photo
from .run import Run

SIDE = 160
"""Pixels of a thumbnail's longer side."""


def thumbnails(run: Run, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """JPEG files for rows of a run, by row number; a shard is opened once. Raises InputError for a damaged one."""
    places = sorted(numbers, key=lambda number: (run.places[number].shard, number))
    output = Output(run.folder)
    for shard, group in groupby(places, key=lambda number: run.places[number].shard):
        overlays = _overlays(output.overlay_folder(shard))
        path = output.maps_path(shard)
        with refused_unless_readable(path, "the shard is damaged"):
            open_regular(path).close()
            arrays = np.load(path, allow_pickle=False)
        with arrays:
            for number in group:
                drawn = _overlay_of(run, number, overlays)
                if drawn is None:
                    place = run.places[number]
                    with refused_unless_readable(path, "the shard is damaged"):
                        drawn = _map_alone(arrays[str(place.row)][place.k])
                yield number, _jpeg(drawn)


def embedded(jpeg: bytes) -> str:
    """A JPEG file as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def write_thumbnail(jpeg: bytes, path: Path) -> None:
    """Writes a thumbnail, whole or not at all. Raises InputError where the folder cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(jpeg)


def _overlays(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []


def _overlay_of(run: Run, number: int, names: list[str]) -> Image.Image | None:
    """The overlay of a row, by the beginning of its file name; None where the run drew none."""
    if not names:
        return None
    row, place = run.rows[number], run.places[number]
    start = f"{picture_name(place.row, row['image'])}_{row.get('target')}"
    first = np.searchsorted(names, start)
    for name in names[first:]:
        if not name.startswith(start):
            return None
        if name[len(start)] in "._":  # else the class's number goes on
            return open_photo(Output(run.folder).overlay_folder(place.shard) / name).image
    return None


def _map_alone(attribution: np.ndarray) -> Image.Image:
    height, width = attribution.shape[-2:]
    scale = SIDE / max(height, width)
    level = heat(attribution.reshape(-1, height, width).sum(0), (round(height * scale), round(width * scale)))
    return Image.fromarray(np.rint(matplotlib.colormaps["inferno"](level)[..., :3] * 255).astype(np.uint8))


def _jpeg(image: Image.Image) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
