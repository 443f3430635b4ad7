"""The command line's options that several commands share, and what their texts mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..api import ExcitationBackprop
    from ..net import Net


def option(name: str, metavar: str, text: str) -> Any:
    """A typer option that shows `metavar` in the help in place of its type."""
    return typer.Option(name, metavar=metavar, help=text)


Model = Annotated[
    str,
    option(
        "--model", "NET", "NET.onnx | DEPLOY.prototxt | .pt2 | torchvision:NAME | timm:NAME | efficientnet_lite0 | ..."
    ),
]
Weights = Annotated[Path | None, option("--weights", "FILE", ".caffemodel; .pth or .safetensors of a torch network")]


@dataclass(frozen=True)
class Files:
    """A model, by its files or its name."""

    PANEL: ClassVar[str] = "Model"

    model: Model
    weights: Weights = None

    def load(self) -> Net:
        """The network with its weights; see `models.open_model`."""
        from ..models import open_model

        return open_model(self.model, self.weights)


@dataclass(frozen=True)
class Sweep:
    """What `ExcitationBackprop` is told beside the network."""

    PANEL: ClassVar[str] = "Map"

    layer: Annotated[
        list[str] | None,
        option("--layer", "NAME", "where the map is read (`ebp-cuda layers` lists all), once or more; else chosen"),
    ] = None
    contrast_layer: Annotated[
        str | None, option("--contrast-layer", "NAME", "c-MWP: subtract here; else chosen where the layer is")
    ] = None
    top: Annotated[str | None, option("--top", "NAME", "the class scores, where the model's end is not")] = None
    rules: Annotated[str, option("--rules", "NAME", "auto | caffe | conserving")] = "auto"
    device: Annotated[str, option("--device", "NAME", "cpu | cuda")] = "cpu"
    dtype: Annotated[str, option("--dtype", "NAME", "fp32 | tf32 | bf16 | fp64")] = "fp32"
    max_memory: Annotated[str, option("--max-memory", "SIZE", "run in parts that take no more, such as 500MB")] = "2GB"

    def of(self, net: Net) -> ExcitationBackprop:
        """The method for a network."""
        import ebp_cuda

        named: dict[str, Any] = {key: value for key, value in vars(self).items() if value is not None and value != []}
        if self.layer and len(self.layer) == 1:
            named["layer"] = self.layer[0]
        method = ebp_cuda.ExcitationBackprop(net, **named)
        if not self.layer:
            typer.echo(f"chosen: {method.setting}", err=True)
        return method


@dataclass(frozen=True)
class Photos:
    """How photos become inputs, and what their classes are called."""

    PANEL: ClassVar[str] = "Photos and classes"

    labels: Annotated[str | None, option("--labels", "LIST", "text file, one name a line; or imagenet, coco80")] = None
    like: Annotated[str | None, option("--like", "NAME", "labels and preprocessing of a known network")] = None
    mean: Annotated[str | None, option("--mean", "NUMBERS", "one, or one per channel: 103.939,116.779,123.68")] = None
    std: Annotated[str | None, option("--std", "NUMBERS", "one, or one per channel")] = None
    raw_scale: Annotated[float | None, option("--raw-scale", "NUMBER", "full white: 255 (Caffe) or 1")] = None
    channel_order: Annotated[str | None, option("--channel-order", "ORDER", "RGB, BGR or GRAY")] = None
    size: Annotated[str | None, option("--size", "SIZE", "resize photos to HEIGHTxWIDTH or a square")] = None
    shortest_side: Annotated[int | None, option("--shortest-side", "PIXELS", "resize photos, aspect kept")] = None

    def changes(self) -> dict[str, Any]:
        """The preprocessing fields that the command line sets: those of the network it names, then single ones."""
        given = {
            "mean": _numbers("--mean", self.mean),
            "std": _numbers("--std", self.std),
            "raw_scale": self.raw_scale,
            "channel_order": self.channel_order.upper() if self.channel_order else None,
            "size": read_size(self.size),
            "shortest_side": self.shortest_side,
        }
        given = {key: value for key, value in given.items() if value is not None}
        known: dict[str, Any] = {}
        if self.like is not None:
            from ..models import preprocess

            known = {key: value for key, value in preprocess(self.like).items() if value is not None}
        if given.keys() & {"size", "shortest_side"}:
            known.pop("size", None)
            known.pop("shortest_side", None)
        return {**known, **given}

    def names(self) -> list[str] | None:
        """The names of the classes that the command line gives, if any."""
        return read_labels(self.labels or self.like)


@dataclass(frozen=True)
class Decoding:
    """How photos are decoded."""

    PANEL: ClassVar[str] = "Photos and classes"

    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", min=1, help="refuse photos of more; else of 179 million")
    ] = None
    fast_decoding: Annotated[
        bool, typer.Option("--fast-decoding", help="large photos at a fraction of their size; moves pixels a little")
    ] = False

    def settings(self) -> dict[str, Any]:
        """The same as arguments of `images.photo.Decoding`, by the names that `batch.run` takes."""
        from ..images.photo import MAX_PIXELS

        return {"max_pixels": self.max_pixels or MAX_PIXELS, "fast_decoding": self.fast_decoding}


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


@dataclass(frozen=True)
class Inputs:
    """What a command is asked about: photos or arrays."""

    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="INPUT...", help="photos, or .npy [C,H,W] or [N,C,H,W]")
    ] = None
    more: Annotated[list[Path] | None, option("--input", "FILE", "an input too")] = None

    def paths(self, command: str) -> list[Path]:
        """All of them. Raises InputError where there is none."""
        paths = [*(self.more or []), *(self.inputs or [])]
        if not paths:
            raise InputError(
                f"{command}: no input; wanted a photo or a .npy file: ebp-cuda {command} PHOTO --model NET"
            )
        return paths


def warn_of_preprocess(net: Any, changes: dict[str, Any]) -> None:
    """Says so where neither the model nor the command line tells how photos become inputs."""
    if net.preprocess is None and not changes:
        typer.echo(
            f"warning: {net.graph.origin} does not say how photos become its input; taking RGB in 0..1 "
            "(see --mean, --std, --raw-scale, --channel-order; many want ImageNet's "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)",
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


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name} {text!r}: wanted numbers with commas between, such as 0.485,0.456,0.406") from None


def read_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
        raise InputError(f"--size {text!r}: wanted HEIGHTxWIDTH, such as 224x300, or one number")
    return int(parts[0]), int(parts[-1])
