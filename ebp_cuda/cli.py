"""The command line `ebp-cuda`: import, layers, attribute, doctor, demo, fetch.

Every refusal (EBPError) is one line "error: ..." on stderr and exit code 2; `--debug`, anywhere on the line,
shows its traceback. Commands import what they need when they run, so that `--help` is quick.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import EBPError, InputError

if TYPE_CHECKING:
    from .preprocess import Preprocess

app = typer.Typer(
    name="ebp-cuda",
    help="Excitation Backprop: which parts of a photo speak for a class of a trained network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[Path, typer.Option("--model", help="NET.onnx or DEPLOY.prototxt")]
Weights = Annotated[Path | None, typer.Option("--weights", help="WEIGHTS.caffemodel of a prototxt model")]
Labels = Annotated[str | None, typer.Option("--labels", help="text file, one name a line; or imagenet, coco80")]
Like = Annotated[str | None, typer.Option("--like", help="labels and preprocessing of a known network: googlenet, ...")]
Mean = Annotated[str | None, typer.Option("--mean", help="one number, or one per channel: 103.939,116.779,123.68")]
Std = Annotated[str | None, typer.Option("--std", help="one number, or one per channel")]
RawScale = Annotated[float | None, typer.Option("--raw-scale", help="value of full white: 255 (Caffe) or 1")]
Order = Annotated[str | None, typer.Option("--channel-order", help="RGB, BGR or GRAY")]
Size = Annotated[str | None, typer.Option("--size", help="resize photos to HEIGHTxWIDTH; one number is a square")]
Shortest = Annotated[int | None, typer.Option("--shortest-side", help="resize photos, aspect ratio kept")]


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
    caffemodel: Annotated[Path, typer.Argument(metavar="WEIGHTS.caffemodel")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.onnx")],
    phase: Annotated[str, typer.Option(help="TEST or TRAIN: which layers' include rules hold")] = "TEST",
    labels: Labels = None,
    like: Like = None,
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """Write a Caffe model as ONNX, with its names, labels and preprocessing inside."""
    from .files import check_writable
    from .importers.caffe import import_file
    from .preprocess import Preprocess

    check_writable(out)
    changes = _changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    described = Preprocess().override(**changes).to_dict() if changes else None
    import_file(prototxt, caffemodel, out, phase=phase, labels=_read_labels(labels or like), preprocess=described)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def layers(
    net: Annotated[Path, typer.Argument(metavar="NET", help="NET.onnx or DEPLOY.prototxt")],
    weights: Weights = None,
) -> None:
    """List a model's layers, the shapes they write, and the rule each one follows."""
    import ebp_cuda

    typer.echo(ebp_cuda.load(*_model_files(net, weights)).summary())


@app.command()
def attribute(
    model: Model,
    inputs: Annotated[list[Path], typer.Option("--input", help="photo or .npy [C,H,W] or [N,C,H,W]; more may follow")],
    target: Annotated[str, typer.Option("--target", help="281 | 281,282 | top5 | all | class names")],
    layer: Annotated[str, typer.Option("--layer", help="where the map is read (`ebp-cuda layers` lists all)")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[MORE INPUTS]", show_default=False)] = None,
    weights: Weights = None,
    contrast_layer: Annotated[str | None, typer.Option("--contrast-layer", help="contrastive map, subtracted here")] = None,
    top: Annotated[str | None, typer.Option("--top", help="the class scores, where the model's end is not")] = None,
    rules: Annotated[str, typer.Option("--rules", help="caffe | conserving")] = "caffe",
    device: Annotated[str, typer.Option("--device", help="cpu | cuda")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="fp32 | tf32 | bf16 | fp64")] = "fp32",
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time")] = 8,
    out: Annotated[Path | None, typer.Option("--out", metavar="MAPS.npz")] = None,
    overlay: Annotated[Path | None, typer.Option("--overlay", metavar="DIR", help="one PNG per image and class")] = None,
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
    if out is not None:
        check_writable(out)
    net = ebp_cuda.load(*_model_files(model, weights))
    names = _read_labels(labels or like) or net.labels
    changes = _changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    paths = [*inputs, *(more or [])]
    read = job.read_inputs(paths, _preprocess(net, changes, paths))
    method = ebp_cuda.ExcitationBackprop(
        net, layer=layer, contrast_layer=contrast_layer, rules=rules, dtype=dtype, device=device, top=top
    )
    with _progress() as progress:
        task = progress.add_task("attributing", total=len(read.x))
        result = job.attribute(
            method, read, target, names, batch=batch, done=lambda count: progress.advance(task, count)
        )
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
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the pictures go")] = Path("demo"),
) -> None:
    """Attention maps of a trained ImageNet network and of a Caffe model, on photos that ship with scikit-image."""
    from .demo import run

    run(out)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="googlenet, vgg16, ...")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the file goes")] = Path("."),
    url: Annotated[str | None, typer.Option("--url", help="another place that serves the same file")] = None,
) -> None:
    """Download the original weights of a known model; resumes, verifies, never leaves a half file."""
    from .fetch import fetch as fetch_model

    typer.echo(str(fetch_model(name, folder, url=url)))


def _model_files(model: Path, weights: Path | None) -> list[Path]:
    if weights is not None and model.suffix != ".prototxt":
        raise InputError(f"--weights {weights}: belongs to a DEPLOY.prototxt, and the model is {model}")
    return [model] if weights is None else [model, weights]


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


def _changes(
    like: str | None,
    mean: str | None,
    std: str | None,
    raw_scale: float | None,
    order: str | None,
    size: str | None,
    shortest: int | None,
) -> dict[str, Any]:
    """The preprocessing fields that the command line sets: those of the network it names, then single ones."""
    from .models import preprocess

    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "raw_scale": raw_scale,
        "channel_order": order.upper() if order else None,
        "size": _size(size),
        "shortest_side": shortest,
    }
    given = {key: value for key, value in given.items() if value is not None}
    known = {key: value for key, value in preprocess(like).items() if value is not None} if like else {}
    if given.keys() & {"size", "shortest_side"}:
        known.pop("size", None)
        known.pop("shortest_side", None)
    return {**known, **given}


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r}: wanted numbers with commas between, such as 0.485,0.456,0.406") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
        raise InputError(f"--size {text!r}: wanted HEIGHTxWIDTH, such as 224x300, or one number")
    return int(parts[0]), int(parts[-1])


def _read_labels(source: str | None) -> list[str] | None:
    if source is None:
        return None
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"--labels {source}: not a text file: {error}") from error
    from .models import labels

    return list(labels(source))


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
