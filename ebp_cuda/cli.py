"""The command line `ebp-cuda`: import, layers, attribute, doctor, demo, fetch.

Every refusal (EBPError) is one line "error: ..." on stderr and exit code 2; `--debug`, anywhere on the line,
shows its traceback. Matplotlib, importers and the like are imported by the commands that need them.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_options import (
    InputShapes,
    Labels,
    Like,
    Mean,
    Model,
    Order,
    Outputs,
    RawScale,
    Shortest,
    Size,
    Std,
    Weights,
    model_files,
    option,
    preprocess_changes,
    read_labels,
    read_outputs,
    read_shapes,
)
from .errors import EBPError, InputError

if TYPE_CHECKING:
    from .importers.caffe import ImportReport
    from .preprocess import Preprocess

app = typer.Typer(
    name="ebp-cuda",
    help="Excitation Backprop: which parts of a photo speak for a class of a trained network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


def main() -> None:
    """Entry point of `ebp-cuda` and `python -m ebp_cuda`."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="ebp-cuda")
    except EBPError as error:
        if debug:
            traceback.print_exc()
        else:
            print("error: " + " ".join(line.strip() for line in str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    pass


@app.command("import")
def import_model(
    prototxt: Annotated[Path, typer.Argument(metavar="DEPLOY.prototxt")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.onnx")],
    caffemodel: Annotated[Path | None, typer.Argument(metavar="WEIGHTS.caffemodel")] = None,
    phase: Annotated[str, typer.Option(help="TEST or TRAIN: which layers' include rules hold")] = "TEST",
    outputs: Outputs = None,
    input_shape: InputShapes = None,
    ignore_unknown: Annotated[bool, typer.Option(help="import layers with unknown fields as if without")] = False,
    labels: Labels = None,
    like: Like = None,
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """Write a Caffe model as ONNX, with its names, labels and preprocessing inside.

    Without WEIGHTS.caffemodel the parameters are made up by the prototxt's fillers, always the same.
    """
    from .files import check_writable
    from .importers.caffe import ImportReport, import_file
    from .preprocess import Preprocess

    check_writable(out)
    changes = preprocess_changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    described = Preprocess().override(**changes).to_dict() if changes else None
    names = read_labels(labels or like)
    options: dict[str, Any] = {"phase": phase, "labels": names, "preprocess": described}
    options |= {"outputs": read_outputs(outputs), "input_shapes": read_shapes(input_shape)}
    report = ImportReport()
    try:
        with _progress() as progress:
            task = progress.add_task("importing", total=1.0)
            options["done"] = lambda part: progress.advance(task, part)
            import_file(prototxt, caffemodel, out, ignore_unknown=ignore_unknown, report=report, **options)
    finally:
        _print_report(report)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def layers(
    net: Annotated[Path, typer.Argument(metavar="NET", help="NET.onnx or DEPLOY.prototxt")],
    weights: Weights = None,
) -> None:
    """List a model's layers, the shapes they write, and the rule each one follows."""
    import ebp_cuda

    typer.echo(ebp_cuda.load(*model_files(net, weights)).summary())


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
    dtype: Annotated[str, option("--dtype", "NAME", "fp32 | fp64")] = "fp32",
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

    from . import job
    from .files import check_writable

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
    read = job.read_inputs(paths, _preprocess(net, changes, paths))
    method = ebp_cuda.ExcitationBackprop(
        net, layer=layer, contrast_layer=contrast_layer, rules=rules, dtype=dtype, device=device, top=top
    )
    with _progress() as progress:
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


@app.command()
def doctor() -> None:
    """Versions, build, GPU, and a small self check; exit code 1 where something is wrong."""
    from .doctor import run

    raise typer.Exit(0 if run() else 1)


@app.command()
def demo(
    out: Annotated[Path, option("--out", "DIR", "where the pictures go")] = Path("demo"),
) -> None:
    """Attention maps of a trained ImageNet network and of a Caffe model, on photos that ship with scikit-image."""
    from .demo import run

    run(out)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="googlenet, vgg16, ...")],
    folder: Annotated[Path, option("--out", "DIR", "where the file goes")] = Path("."),
    url: Annotated[str | None, typer.Option("--url", help="another place that serves the same file")] = None,
) -> None:
    """Download the original weights of a known model; resumes, verifies, never leaves a half file."""
    from .fetch import fetch as fetch_model

    typer.echo(str(fetch_model(name, folder, url=url)))


def _preprocess(net: Any, changes: dict[str, Any], paths: list[Path]) -> Preprocess:
    """The model's own preprocessing with the flags on top; a model of one fixed input size resizes to it."""
    from .preprocess import Preprocess

    if net.preprocess is None and not changes and any(path.suffix != ".npy" for path in paths):
        typer.echo(
            f"warning: {net.graph.origin} does not say how photos become its input; taking RGB in 0..1 "
            "(see --mean, --std, --raw-scale, --channel-order)",
            err=True,
        )
    how = Preprocess.from_dict(net.preprocess).override(**changes)
    height, width = (*next(iter(net.graph.inputs.values())), None, None, None, None)[2:4]
    if how.size is None and how.shortest_side is None and height and width:
        how = how.override(size=(height, width))
    return how


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


def _print_scores(result: Any, names: list[str], labels: list[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from .targets import class_name

    table = Table("input", "class", "name", "score", box=None, pad_edge=False)
    for name, targets, scores in zip(names, result.targets, result.scores, strict=True):
        for index in targets[:20]:
            table.add_row(name, str(index), class_name(int(index), labels), f"{scores[index]:.4g}")
        if len(targets) > 20:
            table.add_row(name, "...", f"{len(targets) - 20} more", "")
    Console().print(table)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
