"""The commands eval: the paper's evaluations on data sets that lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import app, progress_bar
from .grouping import grouped
from .options import Model, Photos, Weights, option

if TYPE_CHECKING:
    from ..eval.methods import Method
    from ..eval.subject import EvaluatedModel

evaluate = typer.Typer(help="The paper's evaluations: pointing game, localization, phrases, faithfulness.")
app.add_typer(evaluate, name="eval", no_args_is_help=True)

Root = Annotated[Path, option("--root", "DIR", "where the data set lies")]
Out = Annotated[Path, option("--out", "DIR", "results; a run that was stopped goes on from here")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="the first pictures only")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="pictures at a time")]
Resize = Annotated[str, option("--resize", "HOW", "map to picture: bicubic | bilinear")]


@dataclass(frozen=True)
class Evaluated:
    """The network that is evaluated and the methods that are compared."""

    model: Model
    weights: Weights = None
    method: Annotated[str, option("--method", "NAMES", "c-mwp,mwp,gradient,deconv,guided,grad-cam,cam,lrp,...|all")] = (
        "c-mwp"
    )
    layer: Annotated[
        str | None, option("--layer", "NAME", "where (c-)MWP maps are read; --like knows it, else chosen")
    ] = None
    contrast_layer: Annotated[str | None, option("--contrast-layer", "NAME", "c-MWP: subtract here")] = None
    cam_layer: Annotated[str | None, option("--cam-layer", "NAME", "Grad-CAM's; default: the last plane")] = None
    top: Annotated[str | None, option("--top", "NAME", "the class scores, where the model's end is not")] = None
    rules: Annotated[str, option("--rules", "NAME", "auto | caffe | conserving")] = "auto"
    device: Annotated[str, option("--device", "NAME", "cpu | cuda")] = "cpu"
    max_memory: Annotated[str, option("--max-memory", "SIZE", "of one pass of (c-)MWP, such as 500MB")] = "2GB"

    def open(self, photos: Photos, changes: dict[str, Any] | None = None) -> tuple[EvaluatedModel, list[Method]]:
        """The network and its methods; of "all" methods, those that it does not allow are only named."""
        from ..eval.methods import build_methods, method_names
        from ..eval.subject import open_subject

        layers = {"layer": self.layer, "contrast": self.contrast_layer, "cam": self.cam_layer, "top": self.top}
        asked = method_names(self.method)
        changes = photos.changes() if changes is None else changes
        subject = open_subject(self.model, self.weights, photos.like, layers, changes, self.rules)
        methods, refused = build_methods(
            subject.net, asked, subject.layers, rules=subject.rules, device=self.device, max_memory=self.max_memory
        )
        if subject.chosen:
            places = subject.layers
            typer.echo(f"chosen: layer {places.layer}, contrast {places.contrast}, rules {subject.rules}", err=True)
        for name, reason in refused.items():
            if self.method != "all":
                raise InputError(f"--method {name}: {reason}")
            typer.echo(f"left out: {name} ({reason})", err=True)
        return subject, methods


@contextmanager
def progress(title: str, total: int, out: Path) -> Iterator[Callable[[int], None]]:
    """A bar over `total` pictures; what it gives is told how many more are done. The command is noted in `out`."""
    from ..report.command import note_command

    with progress_bar() as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
    note_command(out)


@evaluate.command("pointing")
@grouped
def pointing(
    dataset: Annotated[str, option("--dataset", "NAME", "voc07 | coco14")],
    root: Root,
    network: Evaluated,
    photos: Photos,
    out: Out = Path("pointing"),
    protocol: Annotated[str, option("--protocol", "NAME", "original | torchray")] = "original",
    resize: Annotated[str | None, option("--resize", "HOW", "map to picture: bicubic | bilinear")] = None,
    tolerance: Annotated[float, option("--tolerance", "PIXELS", "radius of the circle")] = 15.0,
    smooth: Annotated[float | None, option("--smooth", "PART", "blur of pixel-wise maps; 0: none")] = None,
    difficult: Annotated[Path | None, option("--difficult-list", "FILE", "TorchRay format; else the rule")] = None,
    split: Annotated[str | None, option("--split", "NAME", "test (VOC), val2014 (COCO)")] = None,
    misses: Annotated[int, typer.Option("--misses", min=0, help="worst misses to draw per method")] = 12,
    limit: Limit = None,
    batch: Batch = 8,
) -> None:
    """The pointing game: does the maximum of a map lie on the class? Accuracy per class, All and Difficult.

    Writes DIR/part-*.parquet (every trial), summary.csv, classes.csv and misses-METHOD.png.
    """
    from ..eval.difficult import read_list
    from ..eval.pointing_command import PROTOCOL_SIDE, pointing_trials, protocol_of, run_pointing

    changes = photos.changes()
    if photos.like is not None and photos.size is None and photos.shortest_side is None:
        changes = {**changes, "size": None, "shortest_side": PROTOCOL_SIDE}
    how = protocol_of(protocol, resize, tolerance, smooth)
    subject, methods = network.open(photos, changes)
    trials, classes = pointing_trials(dataset, root, split, limit)
    listed = read_list(difficult, len(classes)) if difficult is not None else None
    settings = {"task": "pointing", "dataset": dataset, "root": str(root.resolve()), "split": split, "limit": limit}
    settings |= {"difficult_list": str(difficult) if difficult else None, "rules": subject.rules}
    with progress("pointing", len(trials), out) as done:
        run_pointing(
            subject, methods, trials, classes, how, out, settings,
            listed=listed, batch=batch, device=network.device, misses=misses, done=done,
        )  # fmt: skip


@evaluate.command("localization")
@grouped
def localization(
    root: Root,
    network: Evaluated,
    photos: Photos,
    out: Out = Path("localization"),
    synsets: Annotated[Path | None, option("--synsets", "FILE", "order of the classes, WordNet id first")] = None,
    held_out: Annotated[int, typer.Option("--held-out", min=1, help="pictures that choose alpha")] = 1000,
    resize: Resize = "bicubic",
    limit: Limit = None,
    batch: Batch = 8,
) -> None:
    """Boxes of ImageNet from maps cut at alpha times their mean: error at an overlap of one half.

    Writes DIR/part-*.parquet (the overlap for every alpha), summary.csv and alphas.csv.
    """
    from ..eval.datasets.imagenet import read_imagenet
    from ..eval.localization import run_localization

    subject, methods = network.open(photos)
    pictures, wnids = read_imagenet(root, synsets)
    settings = {"task": "localization", "root": str(root.resolve()), "limit": limit, "rules": subject.rules}
    with progress("localization", len(pictures[:limit]), out) as done:
        run_localization(
            subject, methods, pictures[:limit], wnids, out, settings,
            held_out=held_out, resize=resize, batch=batch, device=network.device, done=done,
        )  # fmt: skip


@evaluate.command("phrase")
@grouped
def phrase(
    root: Root,
    network: Evaluated,
    photos: Photos,
    out: Out = Path("phrases"),
    words: Annotated[Path | None, option("--words", "FILE", "WORD, tab, CLASSES; else the model's labels")] = None,
    proposals: Annotated[Path | None, option("--proposals", "FILE", "boxes by picture, .npz or .json")] = None,
    gamma: Annotated[float, option("--gamma", "NUMBER", "a box scores its sum over area to this power")] = 0.5,
    resize: Resize = "bicubic",
    tolerance: Annotated[float, option("--tolerance", "PIXELS", "circle of the pointing game")] = 15.0,
    split: Annotated[str, option("--split", "NAME", "reads SPLIT.txt")] = "test",
    limit: Limit = None,
) -> None:
    """Phrases of Flickr30k Entities to regions: recall of ranked boxes at 1, 5, 10, and pointing.

    Writes DIR/part-*.parquet (every phrase), summary.csv and types.csv.
    """
    from ..eval.datasets.flickr30k import read_flickr30k
    from ..eval.phrases import Ranking, run_phrases
    from ..eval.proposals import read_proposals

    subject, methods = network.open(photos)
    captioned = read_flickr30k(root, split)[:limit]
    known = _words(subject, words, photos.names())
    boxes = read_proposals(proposals) if proposals is not None else None
    ranking = Ranking(gamma=gamma, resize=resize, tolerance=tolerance)
    settings = {"task": "phrase", "root": str(root.resolve()), "split": split, "limit": limit, "rules": subject.rules}
    settings |= {"words": str(words) if words else None, "proposals": str(proposals) if proposals else None}
    with progress("phrase", len(captioned), out) as done:
        run_phrases(
            subject, methods, captioned, known, out, settings, ranking,
            proposals=boxes, device=network.device, done=done,
        )  # fmt: skip


def _words(subject: EvaluatedModel, table: Path | None, labels: list[str] | None) -> dict[str, list[int]]:
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
