"""The command attribute: maps of photos and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from .app import app, progress_bar
from .grouping import grouped
from .options import Decoding, Files, Inputs, Photos, Sweep, option, warn_of_preprocess
from .places import Asking, Place

if TYPE_CHECKING:
    from ..images.annotation import Look


@dataclass(frozen=True)
class Pictures:
    """How pictures are drawn."""

    PANEL: ClassVar[str] = "Pictures"

    smooth: Annotated[float, option("--smooth", "PART", "blur pictures by this share of their side: 0.02")] = 0.0
    annotate: Annotated[bool, typer.Option("--annotate", help="class, score, layer and a color bar about it")] = False
    sheet: Annotated[bool, typer.Option("--sheet", help="one more picture: all classes of a photo side by side")] = (
        False
    )
    negative: Annotated[bool, typer.Option("--negative", help="what speaks against the class, in blue")] = False
    colors: Annotated[str, option("--colors", "NAME", "inferno | cividis (for the color-blind) | viridis | magma")] = (
        "inferno"
    )

    def look(self) -> Look:
        """The same for `images`."""
        from ..images.annotation import Look

        return Look(self.smooth, self.colors, self.negative, self.annotate, self.sheet)


@app.command()
@grouped
def attribute(
    files: Files,
    sweep: Sweep,
    place: Place,
    asking: Asking,
    photos: Photos,
    decoding: Decoding,
    pictures: Pictures,
    inputs: Inputs,
    target: Annotated[str, option("--target", "CLASSES", "281 | 281,282 | top5 | all | class names")] = "top1",
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time")] = 8,
    out: Annotated[Path | None, option("--out", "MAPS.npz", "the maps")] = None,
    overlay: Annotated[Path | None, option("--overlay", "DIR", "PNGs go here; without --out: this folder")] = None,
) -> None:
    """Attribution maps of photos or arrays, as pictures and as MAPS.npz (maps, targets, scores, and the settings)."""
    from ..batch import photos as work
    from ..batch.overlays import write_overlays
    from ..files import check_writable
    from ..images.photo import Decoding as How

    paths = inputs.paths("attribute")
    if out is None and overlay is None:
        overlay = Path()
    if out is not None:
        check_writable(out)
    net = files.load()
    names = photos.names() or net.labels
    changes = photos.changes()
    axes = work.spatial_axes(net)
    if any(path.suffix != ".npy" for path in paths) and axes == 2:
        warn_of_preprocess(net, changes)
    read = work.read_inputs(paths, work.preprocess_of(net, changes), How(*decoding.settings().values()), axes)
    method = sweep.of(net)
    with progress_bar() as progress:
        task = progress.add_task("attributing", total=1.0)
        advance = lambda part: progress.advance(task, part)  # noqa: E731
        asked = {**place.arguments(), **asking.arguments()}
        result = work.attribute(method, read, target, names, batch=batch, done=advance, asked=asked)
    if out is not None:
        work.write_npz(result, out)
    written = write_overlays(result, read, names, overlay, look=pictures.look()) if overlay is not None else []
    _print_scores(result, read.names, names)
    if out is not None:
        typer.echo(f"{out}: maps {', '.join(str(list(maps.shape)) for maps in result.by_layer.values())}")
    if written:
        typer.echo(str(written[0]) if len(written) == 1 else f"{overlay}: {len(written)} pictures")


def _print_scores(result: Any, names: list[str], labels: list[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..targets import class_name

    table = Table("input", "class", "name", "score", "mass left", box=None, pad_edge=False)
    lefts = result.mass_left
    first = next(iter(lefts.values())) if isinstance(lefts, dict) else lefts
    for name, targets, scores, left in zip(names, result.targets, result.scores, first, strict=True):
        for index, part in zip(targets[:20], left, strict=False):
            known = index >= 0  # an embedding or a seed is no class
            words = (class_name(int(index), labels), f"{scores[index]:.4g}") if known else ("", "")
            table.add_row(name, str(index) if known else "", *words, f"{part:.2g}")
        if len(targets) > 20:
            table.add_row(name, "...", f"{len(targets) - 20} more", "", "")
    Console().print(table)
