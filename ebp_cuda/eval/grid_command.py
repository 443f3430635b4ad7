"""`ebp-cuda eval grid`: from photos to mosaics, tables and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..api import ExcitationBackprop
from ..batch.identity import graph_digest
from ..errors import InputError
from ..images.maps import Panel, figure, overlay, save_figure
from ..images.preprocess import Preprocess
from ..models import digits, efficientnet_lite0, labels, open_model
from ..models.opening import DIGITS, EFFICIENTNET
from ..net import Net, from_torch
from .grid import Mosaic, draw_mosaics
from .grid_photos import cut_tiles, prepared, read_photos, shipped_photos
from .grid_run import GridMethod, grid_summary, play_grid
from .records import Records, Row, write_csv
from .report import print_table


@dataclass(frozen=True)
class GridNetwork:
    """A network of the game: at the size of a tile, and at that of a mosaic."""

    tile: Net
    mosaic: Net
    how: Preprocess
    layers: tuple[str, ...]
    """Where MWP and c-MWP are read by default."""
    contrast: str
    rules: str


@dataclass(frozen=True)
class Drawing:
    """What the mosaics of a run are made of."""

    model: str
    """As `models.open_model` takes it."""
    cells: int
    """Tiles on a side."""
    tile: int
    """Pixels on a side of a tile."""
    mosaics: int
    confidence: float
    """The least probability of a tile's class."""
    seed: int
    photos: Path | None = None
    """Photos of one's own; None: those that installed packages ship."""


def open_network(drawing: Drawing, weights: Path | None) -> GridNetwork:
    """The network, for mosaics of that size.

    Raises:
        InputError: the input has another size than the mosaics.
    """
    model, side = drawing.model, drawing.tile * drawing.cells
    if model == EFFICIENTNET:  # read twice, since a torch module is read for one size
        module = efficientnet_lite0.load(weights)
        small, large = (
            from_torch(module, torch.zeros(1, 3, size, size), labels=labels("imagenet"))
            for size in (drawing.tile, side)
        )
        how = Preprocess.from_dict(efficientnet_lite0.PREPROCESS)
        return GridNetwork(small, large, how, ("blocks.5", "blocks.10", "blocks.15"), "pool", "conserving")
    net = open_model(model, weights)
    how = Preprocess.from_dict(net.preprocess)
    if model == DIGITS:
        if side != digits.scenes.SIZE:
            raise InputError(f"--model digits takes {digits.scenes.SIZE} x {digits.scenes.SIZE} pixels, not {side}")
        return GridNetwork(net, net, how, (digits.LAYER, "pool2", "pool3"), digits.CONTRAST_LAYER, "caffe")
    size = next(iter(net.graph.inputs.values()))[2:4]
    if any(pixels not in (None, side) for pixels in size):
        raise InputError(
            f"--model {model}: its input is {size[0]} x {size[1]} and a mosaic has {side} pixels on a side; "
            "wanted a network of free size, or another --tile"
        )
    setting = ExcitationBackprop(net).setting
    return GridNetwork(net, net, how, (str(setting.layer),), setting.contrast_layer or "", setting.rules)


def grid_mosaics(network: GridNetwork, drawing: Drawing) -> list[Mosaic]:
    """The mosaics of a run, the same for the same arguments. Raises InputError."""
    if drawing.model == DIGITS and drawing.photos is None:
        from .grid_digits import digit_tiles

        tiles = digit_tiles(network.tile, network.how, drawing.tile, drawing.confidence, drawing.seed)
    else:
        photos = shipped_photos() if drawing.photos is None else read_photos(drawing.photos, network.tile.labels)
        tiles = cut_tiles(
            photos, network.tile, network.how, drawing.tile, confidence=drawing.confidence, seed=drawing.seed
        )
    return list(draw_mosaics(tiles, drawing.cells, drawing.mosaics, drawing.seed))


def run_grid(
    network: GridNetwork,
    mosaics: Sequence[Mosaic],
    methods: Sequence[GridMethod],
    out: Path,
    drawing: Drawing,
    settings: Mapping[str, Any],
    *,
    examples: int = 4,
    done: Callable[[int], None] = lambda mosaics: None,
) -> list[dict[str, Any]]:
    """Plays, writes summary.csv and examples.png into `out`, prints the table, returns its rows."""
    described = {"network": graph_digest(network.mosaic.graph), "preprocess": network.how.to_dict()}
    drawn = {**asdict(drawing), "photos": str(drawing.photos) if drawing.photos else None}
    records = Records(out, {**settings, **drawn, **described, "methods": [method.key for method in methods]})
    play_grid(mosaics, methods, network.how, records, done)
    table = grid_summary(records.rows)
    write_csv(out / "summary.csv", table)
    print_table(f"grid pointing game, {len(records.done)} mosaics of {mosaics[0].cells} x {mosaics[0].cells}", table, 3)
    if examples:
        draw_examples(network, mosaics, methods, records.rows, examples, out / "examples.png")
    return table


def draw_examples(
    network: GridNetwork,
    mosaics: Sequence[Mosaic],
    methods: Sequence[GridMethod],
    rows: Sequence[Row],
    count: int,
    path: Path,
) -> Path:
    """A PNG: the best and the worst pairs of the first method, with the map of every method beside the mosaic."""
    first = sorted((row for row in rows if _of(row, methods[0])), key=lambda row: row["mass"])
    labels = network.mosaic.labels or []
    by_name = {mosaic.name: mosaic for mosaic in mosaics}
    grid = []
    for row in [*first[: count // 2], *first[len(first) - (count - count // 2) :]]:
        mosaic = by_name[row["image"]]
        x, classes = prepared([mosaic.image], network.how), torch.tensor([[row["label"]]])
        name = labels[row["label"]] if row["label"] < len(labels) else f"class {row['label']}"
        panels = [Panel(mosaic.image, f"{name}: cell {row['cell'] + 1}")]
        for method in methods:
            (mass,) = (r["mass"] for r in rows if _of(r, method) and _same_pair(r, row))
            panels.append(Panel(overlay(mosaic.image, method.maps(x, classes)[0, 0]), f"{method.key}\n{mass:.2f}"))
        grid.append(panels)
    return save_figure(figure(grid, title="the worst and the best pairs of the first method"), path)


def _of(row: Row, method: GridMethod) -> bool:
    return (row["method"], row["layer"]) == (method.name, method.layer)


def _same_pair(row: Row, other: Row) -> bool:
    return (row["image"], row["cell"]) == (other["image"], other["cell"])
