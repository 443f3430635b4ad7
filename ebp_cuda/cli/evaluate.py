"""The commands eval: the paper's evaluations on data sets that lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import app, progress_bar
from .options import (
    Labels,
    Like,
    Mean,
    Order,
    RawScale,
    Shortest,
    Size,
    Std,
    Weights,
    option,
    preprocess_changes,
    read_labels,
)

if TYPE_CHECKING:
    from ..eval.methods import Method
    from ..eval.subject import Subject

evaluate = typer.Typer(help="The paper's evaluations: pointing game, localisation, phrases, faithfulness.")
app.add_typer(evaluate, name="eval", no_args_is_help=True)

Model = Annotated[Path, option("--model", "FILE", "NET.onnx, DEPLOY.prototxt, or digits: the one that comes along")]
Root = Annotated[Path, option("--root", "DIR", "where the data set lies")]
Out = Annotated[Path, option("--out", "DIR", "results; a run that was stopped goes on from here")]
Methods = Annotated[str, option("--method", "NAMES", "c-mwp,mwp,gradient,deconv,guided,grad-cam,cam,lrp,center | all")]
Layer = Annotated[str | None, option("--layer", "NAME", "where (c-)MWP maps are read; --like knows it")]
Contrast = Annotated[str | None, option("--contrast-layer", "NAME", "where c-MWP subtracts; --like knows it")]
CamLayer = Annotated[str | None, option("--cam-layer", "NAME", "Grad-CAM's and CAM's; default: the last plane")]
Top = Annotated[str | None, option("--top", "NAME", "the class scores, where the model's end is not")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="pictures at a time")]
Device = Annotated[str, option("--device", "NAME", "cpu | cuda")]
Rules = Annotated[str, option("--rules", "NAME", "caffe | conserving")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="the first pictures only")]


@evaluate.command("pointing")
def pointing(
    dataset: Annotated[str, option("--dataset", "NAME", "voc07 | coco14")],
    root: Root,
    model: Model,
    out: Out = Path("pointing"),
    method: Methods = "c-mwp",
    weights: Weights = None,
    like: Like = None,
    layer: Layer = None,
    contrast_layer: Contrast = None,
    cam_layer: CamLayer = None,
    top: Top = None,
    protocol: Annotated[str, option("--protocol", "NAME", "original | torchray")] = "original",
    resize: Annotated[str | None, option("--resize", "HOW", "map to picture: bicubic | bilinear")] = None,
    tolerance: Annotated[float, option("--tolerance", "PIXELS", "radius of the circle")] = 15.0,
    smooth: Annotated[float | None, option("--smooth", "PART", "blur of pixel-wise maps; 0: none")] = None,
    difficult: Annotated[Path | None, option("--difficult-list", "FILE", "TorchRay format; else the rule")] = None,
    split: Annotated[str | None, option("--split", "NAME", "test (VOC), val2014 (COCO)")] = None,
    misses: Annotated[int, typer.Option("--misses", min=0, help="worst misses to draw per method")] = 12,
    limit: Limit = None,
    batch: Batch = 8,
    device: Device = "cpu",
    rules: Rules = "caffe",
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """The pointing game: does the maximum of a map lie on the class? Accuracy per class, All and Difficult.

    Writes DIR/part-*.parquet (every trial), summary.csv, classes.csv and misses-METHOD.png.
    """
    from ..eval.difficult import read_list
    from ..eval.pointing_command import PROTOCOL_SIDE, pointing_trials, protocol_of, run_pointing

    if like is not None and size is None:
        shortest_side = shortest_side or PROTOCOL_SIDE
    changes = preprocess_changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    subject = _subject(model, weights, like, layer, contrast_layer, cam_layer, top, changes)
    rules_of = protocol_of(protocol, resize, tolerance, smooth)
    trials, classes = pointing_trials(dataset, root, split, limit)
    listed = read_list(difficult, len(classes)) if difficult is not None else None
    methods = _methods(subject, method, rules, device)
    settings = {"task": "pointing", "dataset": dataset, "root": str(root.resolve()), "split": split, "limit": limit}
    settings |= {"difficult_list": str(difficult) if difficult else None, "rules": rules}
    with _progress("pointing", len(trials)) as done:
        run_pointing(
            subject, methods, trials, classes, rules_of, out, settings,
            listed=listed, batch=batch, device=device, misses=misses, done=done,
        )  # fmt: skip


@evaluate.command("localization")
def localization(
    root: Root,
    model: Model,
    out: Out = Path("localization"),
    method: Methods = "c-mwp",
    weights: Weights = None,
    like: Like = None,
    layer: Layer = None,
    contrast_layer: Contrast = None,
    cam_layer: CamLayer = None,
    top: Top = None,
    synsets: Annotated[Path | None, option("--synsets", "FILE", "order of the classes, WordNet id first")] = None,
    held_out: Annotated[int, typer.Option("--held-out", min=1, help="pictures that choose alpha")] = 1000,
    resize: Annotated[str, option("--resize", "HOW", "map to picture: bicubic | bilinear")] = "bicubic",
    limit: Limit = None,
    batch: Batch = 8,
    device: Device = "cpu",
    rules: Rules = "caffe",
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """Boxes of ImageNet from maps cut at alpha times their mean: error at an overlap of one half.

    Writes DIR/part-*.parquet (the overlap for every alpha), summary.csv and alphas.csv.
    """
    from ..eval.datasets.imagenet import read_imagenet
    from ..eval.localization import run_localization

    changes = preprocess_changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    subject = _subject(model, weights, like, layer, contrast_layer, cam_layer, top, changes)
    pictures, wnids = read_imagenet(root, synsets)
    methods = _methods(subject, method, rules, device)
    settings = {"task": "localization", "root": str(root.resolve()), "limit": limit, "rules": rules}
    with _progress("localization", len(pictures[:limit])) as done:
        run_localization(
            subject, methods, pictures[:limit], wnids, out, settings,
            held_out=held_out, resize=resize, batch=batch, device=device, done=done,
        )  # fmt: skip


@evaluate.command("phrase")
def phrase(
    root: Root,
    model: Model,
    out: Out = Path("phrases"),
    method: Methods = "c-mwp",
    weights: Weights = None,
    like: Like = None,
    layer: Layer = None,
    contrast_layer: Contrast = None,
    cam_layer: CamLayer = None,
    top: Top = None,
    words: Annotated[Path | None, option("--words", "FILE", "WORD, tab, CLASSES; else the model's labels")] = None,
    labels: Labels = None,
    proposals: Annotated[
        Path | None, option("--proposals", "FILE", "boxes by picture, .npz or .json")
    ] = None,
    gamma: Annotated[float, option("--gamma", "NUMBER", "a box scores its sum over area to this power")] = 0.5,
    tolerance: Annotated[float, option("--tolerance", "PIXELS", "circle of the pointing game")] = 15.0,
    split: Annotated[str, option("--split", "NAME", "reads SPLIT.txt")] = "test",
    limit: Limit = None,
    device: Device = "cpu",
    rules: Rules = "caffe",
    mean: Mean = None,
    std: Std = None,
    raw_scale: RawScale = None,
    channel_order: Order = None,
    size: Size = None,
    shortest_side: Shortest = None,
) -> None:
    """Phrases of Flickr30k Entities to regions: recall of ranked boxes at 1, 5, 10, and pointing.

    Writes DIR/part-*.parquet (every phrase), summary.csv and types.csv.
    """
    from ..eval.datasets.flickr30k import read_flickr30k
    from ..eval.phrases import Ranking, run_phrases
    from ..eval.proposals import read_proposals

    changes = preprocess_changes(like, mean, std, raw_scale, channel_order, size, shortest_side)
    subject = _subject(model, weights, like, layer, contrast_layer, cam_layer, top, changes)
    captioned = read_flickr30k(root, split)[:limit]
    known = _words(subject, words, read_labels(labels or like))
    boxes = read_proposals(proposals) if proposals is not None else None
    methods = _methods(subject, method, rules, device)
    settings = {"task": "phrase", "root": str(root.resolve()), "split": split, "limit": limit, "rules": rules}
    settings |= {"words": str(words) if words else None, "proposals": str(proposals) if proposals else None}
    with _progress("phrase", len(captioned)) as done:
        run_phrases(
            subject, methods, captioned, known, out, settings, Ranking(gamma=gamma, tolerance=tolerance),
            proposals=boxes, device=device, done=done,
        )  # fmt: skip


def _words(subject: Subject, table: Path | None, labels: list[str] | None) -> dict[str, list[int]]:
    from ..eval.subject import output_count
    from ..eval.words import read_words, words_of_labels

    labels = labels or subject.net.labels
    if table is not None:
        return read_words(table, labels, output_count(subject))
    if labels is None:
        raise InputError("--words: the model does not name its classes; give --words, --labels or --like")
    return words_of_labels(labels)


@evaluate.command("make-digits")
def make_digits(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="voc07 | coco14 | imagenet | flickr30k")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty")],
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="how many pictures")] = 200,
    seed: Annotated[int, option("--seed", "NUMBER", "other scenes")] = 0,
) -> None:
    """Writes scenes of handwritten digits as a data set of that format, to try the evaluations on."""
    from ..models.digits import on_disk

    on_disk.write(kind, folder, scenes, seed)
    typer.echo(f"{folder}: {scenes} pictures")


def _subject(
    model: Path,
    weights: Path | None,
    like: str | None,
    layer: str | None,
    contrast: str | None,
    cam: str | None,
    top: str | None,
    changes: dict[str, Any],
) -> Subject:
    from ..eval.subject import open_subject

    layers = {"layer": layer, "contrast": contrast, "cam": cam, "top": top}
    if model.suffix == ".prototxt" and weights is None:
        raise InputError(f"--model {model} holds no weights; give --weights WEIGHTS.caffemodel")
    return open_subject(model, weights, like, layers, changes)


def _methods(subject: Subject, names: str, rules: str, device: str) -> list[Method]:
    """The methods asked for; of "all" those that the network does not allow are only named."""
    from ..eval.methods import build_methods, method_names

    methods, refused = build_methods(subject.net, method_names(names), subject.layers, rules=rules, device=device)
    for name, reason in refused.items():
        if names != "all":
            raise InputError(f"--method {name}: {reason}")
        typer.echo(f"left out: {name} ({reason})", err=True)
    return methods


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    with progress_bar() as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
