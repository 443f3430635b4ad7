"""Commands about model files: import, layers, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, progress_bar
from .grouping import grouped
from .options import InputShapes, Outputs, Photos, Weights, option, read_outputs, read_shapes

if TYPE_CHECKING:
    from ..importers.caffe import ImportReport
    from ..net import Net


@app.command("import")
@grouped
def import_model(
    photos: Photos,
    prototxt: Annotated[Path, typer.Argument(metavar="DEPLOY.prototxt")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.onnx")],
    caffemodel: Annotated[Path | None, typer.Argument(metavar="WEIGHTS.caffemodel")] = None,
    phase: Annotated[str, typer.Option(help="TEST or TRAIN: which layers' include rules hold")] = "TEST",
    outputs: Outputs = None,
    input_shape: InputShapes = None,
    ignore_unknown: Annotated[bool, typer.Option(help="import layers with unknown fields as if without")] = False,
    stored_statistics: Annotated[bool, typer.Option(help="BatchNorm never by those of the batch")] = False,
) -> None:
    """Write a Caffe model as ONNX, with its names, labels and preprocessing inside.

    Without WEIGHTS.caffemodel the parameters are made up by the prototxt's fillers, always the same.
    """
    from ..files import check_writable
    from ..images.preprocess import Preprocess
    from ..importers.caffe import ImportReport, import_file

    check_writable(out)
    changes = photos.changes()
    described = Preprocess().override(**changes).to_dict() if changes else None
    options: dict[str, Any] = {"phase": phase, "labels": photos.names(), "preprocess": described}
    options |= {"ignore_unknown": ignore_unknown, "stored_statistics": stored_statistics}
    options |= {"outputs": read_outputs(outputs), "input_shapes": read_shapes(input_shape)}
    report = ImportReport()
    try:
        with progress_bar() as progress:
            task = progress.add_task("importing", total=1.0)
            options["done"] = lambda part: progress.advance(task, part)
            import_file(prototxt, caffemodel, out, report=report, **options)
    finally:
        _print_report(report)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def layers(
    net: Annotated[str, typer.Argument(metavar="NET", help="what --model of the other commands takes")],
    weights: Weights = None,
    candidates: Annotated[bool, typer.Option("--candidates", help="only the good places for a map, and why")] = False,
) -> None:
    """List a model's layers, the shapes they write, and the rule each one follows."""
    from ..models import open_model

    network = open_model(net, weights, random=True)
    if candidates:
        _print_candidates(network)
    else:
        typer.echo(network.summary())


def _print_candidates(net: Net) -> None:
    """The places with what speaks for or against them, and which of them is taken."""
    from ..api import ExcitationBackprop

    setting = ExcitationBackprop(net).setting
    places = net.candidates()
    width = max((len(place.layer) for place in places), default=0)
    for place in places:
        mark = "chosen" if place.layer == setting.layer else "good" if place.good else ""
        plane = "x".join(map(str, place.plane))
        size = f"{plane:>9}  {place.channels:>5} channels  depth {place.depth:>4.0%}"
        typer.echo(f"{mark:<7}{place.layer:<{width}}  {size}  {place.why}")
    typer.echo(f"chosen: {setting}")


_FETCHED = "googlenet, googlenet_coco, vgg16, vgg19, alexnet, caffenet, resnet50, torchvision:NAME or timm:NAME"


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_FETCHED)],
    folder: Annotated[Path, option("--out", "DIR", "where the file goes")] = Path("."),
    url: Annotated[str | None, typer.Option("--url", help="another place that serves the same file")] = None,
) -> None:
    """Download the original weights of a known model; resumes, verifies, never leaves a half file."""
    library, _, network = name.partition(":")
    if library in ("torchvision", "timm"):
        from ..models.libraries import fetch_library_model

        typer.echo(str(fetch_library_model(library, network)))  # into the library's own cache
        return
    from ..catalogue.fetch import fetch as fetch_model

    typer.echo(str(fetch_model(name, folder, url=url)))


def _print_report(report: ImportReport) -> None:
    for words, names in (
        ("left out, for training only", report.dropped),
        ("in the weights file, but not in the network", report.unused),
        ("unknown to the format", report.unknown),
        ("stored statistics in place of the batch's", report.batch_statistics),
        ("NaN or infinite parameters", report.not_finite),
        ("made up by fillers", report.missing),
        ("parameters shared by name", [f"{one} = {other}" for one, other in report.shared.items()]),
    ):
        if names:
            typer.echo(f"{words}: {', '.join(names)}", err=True)
