"""The command line's options that several commands share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError


def option(name: str, metavar: str, text: str) -> Any:
    """A typer option that shows `metavar` in the help in place of its type."""
    return typer.Option(name, metavar=metavar, help=text)


Model = Annotated[Path, option("--model", "FILE", "NET.onnx or DEPLOY.prototxt")]
Weights = Annotated[Path | None, option("--weights", "FILE", "WEIGHTS.caffemodel of a prototxt model")]
Labels = Annotated[str | None, option("--labels", "LIST", "text file, one name a line; or imagenet, coco80")]
Like = Annotated[str | None, option("--like", "NAME", "labels and preprocessing of a known network: googlenet, ...")]
Mean = Annotated[str | None, option("--mean", "NUMBERS", "one, or one per channel: 103.939,116.779,123.68")]
Std = Annotated[str | None, option("--std", "NUMBERS", "one, or one per channel")]
RawScale = Annotated[float | None, option("--raw-scale", "NUMBER", "value of full white: 255 (Caffe) or 1")]
Order = Annotated[str | None, option("--channel-order", "ORDER", "RGB, BGR or GRAY")]
Size = Annotated[str | None, option("--size", "SIZE", "resize photos to HEIGHTxWIDTH; one number is a square")]
Shortest = Annotated[int | None, option("--shortest-side", "PIXELS", "resize photos, aspect ratio kept")]

Outputs = Annotated[list[str] | None, option("--outputs", "BLOBS", "import what these blobs or layers need, no more")]
InputShapes = Annotated[list[str] | None, option("--input-shape", "SHAPE", "data=1,3,224,224; one for every input")]


def read_outputs(given: list[str] | None) -> list[str] | None:
    """The names in `--outputs a,b --outputs c`; None stays None."""
    return [name for text in given for name in text.split(",") if name] if given else None


def read_shapes(given: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Input name -> shape, from NAME=N,C,H,W. Raises InputError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given or ():
        name, _, numbers = text.rpartition("=")
        parts = numbers.split(",")
        if not name or not all(part.strip().isdigit() for part in parts):
            raise InputError(f"--input-shape {text!r}: wanted NAME=N,C,H,W, such as data=1,3,224,224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def preprocess_changes(
    like: str | None,
    mean: str | None,
    std: str | None,
    raw_scale: float | None,
    order: str | None,
    size: str | None,
    shortest: int | None,
) -> dict[str, Any]:
    """The preprocessing fields that the command line sets: those of the network it names, then single ones."""
    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "raw_scale": raw_scale,
        "channel_order": order.upper() if order else None,
        "size": _size(size),
        "shortest_side": shortest,
    }
    given = {key: value for key, value in given.items() if value is not None}
    known: dict[str, Any] = {}
    if like is not None:
        from ..models import preprocess

        known = {key: value for key, value in preprocess(like).items() if value is not None}
    if given.keys() & {"size", "shortest_side"}:
        known.pop("size", None)
        known.pop("shortest_side", None)
    return {**known, **given}


def warn_of_preprocess(net: Any, changes: dict[str, Any]) -> None:
    """Says so where neither the model nor the command line tells how photos become inputs."""
    if net.preprocess is None and not changes:
        typer.echo(
            f"warning: {net.graph.origin} does not say how photos become its input; taking RGB in 0..1 "
            "(see --mean, --std, --raw-scale, --channel-order)",
            err=True,
        )


def read_labels(source: str | None) -> list[str] | None:
    """Class names from a file, or the list of that name that ships; None stays None. Raises InputError."""
    if source is None:
        return None
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--labels {source}: not a readable text file: {error}") from error
    from ..models import labels

    return list(labels(source))


def model_files(model: Path, weights: Path | None) -> list[Path]:
    """The arguments of `ebp_cuda.load`. Raises InputError for weights beside a model that carries its own."""
    if weights is not None and model.suffix == ".onnx":
        raise InputError(f"--weights {weights}: belongs to a DEPLOY.prototxt, and {model} carries its own")
    return [model] if weights is None else [model, weights]


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name} {text!r}: wanted numbers with commas between, such as 0.485,0.456,0.406") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
        raise InputError(f"--size {text!r}: wanted HEIGHTxWIDTH, such as 224x300, or one number")
    return int(parts[0]), int(parts[-1])
