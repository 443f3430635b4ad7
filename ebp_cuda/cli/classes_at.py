"""The command classes-at: which classes have their attention at a place."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import app
from .grouping import grouped
from .options import Decoding, Files, Inputs, Photos, Sweep, warn_of_preprocess
from .places import Place


@app.command("classes-at")
@grouped
def classes_at(
    files: Files,
    place: Place,
    sweep: Sweep,
    photos: Photos,
    decoding: Decoding,
    inputs: Inputs,
    first: Annotated[int, typer.Option("--first", min=1, help="classes to show, from the highest share on")] = 10,
) -> None:
    """Classes by what they leave at a place of the map, all of them by one sweep from the place upwards."""
    from ..batch import photos as work
    from ..images.photo import Decoding as How

    arguments = place.arguments()
    if not arguments:
        raise InputError("classes-at: at which place of the map? Give --pixel, --box or --mask")
    paths = inputs.paths("classes-at")
    net = files.load()
    changes = photos.changes()
    if any(path.suffix != ".npy" for path in paths):
        warn_of_preprocess(net, changes)
    read = work.read_inputs(paths, work.preprocess_of(net, changes), How(*decoding.settings().values()))
    ranked = sweep.of(net).classes_at(read.x, next(iter(arguments.values())))
    _print_shares(ranked, read.names, photos.names() or net.labels, first)


def _print_shares(ranked: Any, names: list[str], labels: list[str] | None, first: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..targets import class_name

    table = Table("input", "class", "name", "share", "lift", "score", box=None, pad_edge=False)
    for name, classes, share, lift, scores in zip(
        names, ranked.classes, ranked.share, ranked.lift, ranked.scores, strict=True
    ):
        for index, part, more in zip(classes[:first].tolist(), share.tolist(), lift.tolist(), strict=False):
            row = (f"{part:.3g}", f"{more:+.2g}", f"{scores[index]:.4g}")
            table.add_row(name, str(index), class_name(index, labels), *row)
    Console().print(table)
