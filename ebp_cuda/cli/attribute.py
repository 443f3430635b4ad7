"""The command attribute: maps of photos and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import app, progress_bar
from .options import (
    Labels,
    Like,
    Mean,
    Model,
    Order,
    RawScale,
    Shortest,
    Size,
    Std,
    Weights,
    model_files,
    option,
    preprocess_changes,
    read_labels,
    warn_of_preprocess,
)


@app.command()
def attribute(
    model: Model,
    inputs: Annotated[list[Path], option("--input", "FILE", "photo or .npy [C,H,W] or [N,C,H,W]; more may follow")],
    target: Annotated[str, option("--target", "CLASSES", "281 | 281,282 | top5 | all | class names")],
    layer: Annotated[str, option("--layer", "NAME", "where the map is read (`ebp-cuda layers` lists all)")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="MORE", help="more inputs")] = None,
    weights: Weights = None,
    contrast_layer: Annotated[str | None, option("--contrast-layer", "NAME", "c-MWP: subtract here")] = None,
    top: Annotated[str | None, option("--top", "NAME", "the class scores, where the model's end is not")] = None,
    rules: Annotated[str, option("--rules", "NAME", "caffe | conserving")] = "caffe",
    device: Annotated[str, option("--device", "NAME", "cpu | cuda")] = "cpu",
    dtype: Annotated[str, option("--dtype", "NAME", "fp32 | tf32 | bf16 | fp64")] = "fp32",
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time")] = 8,
    out: Annotated[Path | None, option("--out", "MAPS.npz", "the maps")] = None,
    overlay: Annotated[Path | None, option("--overlay", "DIR", "PNGs go here")] = None,
    labels: Labels = None,
    like: Like = None,
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """Attribution maps of photos or arrays, written to MAPS.npz (maps, targets, scores) and as overlays."""
    import ebp_cuda

    from .. import job
    from ..files import check_writable

    if out is None and overlay is None:
        raise InputError("attribute: nothing to write; give --out MAPS.npz, --overlay DIR, or both")
    if weights is None and model.suffix == ".prototxt":
        raise InputError(f"attribute: {model} holds no weights; give --weights WEIGHTS.caffemodel")
    if out is not None:
        check_writable(out)
    net = ebp_cuda.load(*model_files(model, weights))
    names = read_labels(labels or like) or net.labels
    changes = preprocess_changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    paths = [*inputs, *(more or [])]
    if any(path.suffix != ".npy" for path in paths):
        warn_of_preprocess(net, changes)
    read = job.read_inputs(paths, job.preprocess_of(net, changes))
    method = ebp_cuda.ExcitationBackprop(
        net, layer=layer, contrast_layer=contrast_layer, rules=rules, dtype=dtype, device=device, top=top
    )
    with progress_bar() as progress:
        task = progress.add_task("attributing", total=1.0)
        result = job.attribute(method, read, target, names, batch=batch, done=lambda part: progress.advance(task, part))
    if out is not None:
        job.write_npz(result, out)
    written = job.write_overlays(result, read, names, overlay) if overlay is not None else []
    _print_scores(result, read.names, names)
    if out is not None:
        typer.echo(f"{out}: maps {list(result.maps.shape)}")
    if written:
        typer.echo(f"{overlay}: {len(written)} pictures")


def _print_scores(result: Any, names: list[str], labels: list[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..targets import class_name

    table = Table("input", "class", "name", "score", box=None, pad_edge=False)
    for name, targets, scores in zip(names, result.targets, result.scores, strict=True):
        for index in targets[:20]:
            table.add_row(name, str(index), class_name(int(index), labels), f"{scores[index]:.4g}")
        if len(targets) > 20:
            table.add_row(name, "...", f"{len(targets) - 20} more", "")
    Console().print(table)
