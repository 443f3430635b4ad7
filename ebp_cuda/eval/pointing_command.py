"""`ebp-cuda eval pointing`: from a data set on disk to tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import published
from .datasets.base import Picture
from .datasets.coco import read_coco
from .datasets.voc import asked, read_voc
from .methods import Method
from .pointing_run import PROTOCOLS, Protocol, Trial, per_class, play, summary
from .records import Records, Row, write_csv
from .report import draw_misses, print_table, worst_misses
from .subject import EvaluatedModel, class_outputs, described

DATASETS = ("voc07", "coco14")
PROTOCOL_SIDE = 224
"""Pixels of the shorter side in the original evaluation."""


def protocol_of(name: str, resize: str | None, tolerance: float, smooth: float | None) -> Protocol:
    """A named protocol with single settings changed. Raises InputError for an unknown name or value."""
    if name not in PROTOCOLS:
        raise InputError(f"--protocol '{name}': wanted one of {', '.join(PROTOCOLS)}")
    if resize not in (None, "bicubic", "bilinear"):
        raise InputError(f"--resize '{resize}': wanted bicubic or bilinear")
    if not tolerance >= 0 or not (smooth is None or smooth >= 0):
        raise InputError(f"--tolerance {tolerance}, --smooth {smooth}: numbers of 0 or more were wanted")
    changes: dict[str, Any] = {"resize": resize, "tolerance": tolerance, "smooth": smooth}
    return replace(PROTOCOLS[name], **{key: value for key, value in changes.items() if value is not None})


def pointing_trials(
    dataset: str, root: Path, split: str | None = None, limit: int | None = None
) -> tuple[list[Trial], list[str]]:
    """(every picture of the set with the classes to ask for, names of the classes). Raises InputError."""
    pictures: list[Picture]
    if dataset == "voc07":
        pictures, classes = read_voc(root, split or "test")
        trials = [Trial(picture, tuple(asked(picture))) for picture in pictures]
    elif dataset == "coco14":
        pictures, classes = read_coco(root, split or "val2014")
        trials = [Trial(picture, tuple(picture.labels)) for picture in pictures]
    else:
        raise InputError(f"--dataset '{dataset}': wanted one of {', '.join(DATASETS)}")
    return trials[:limit], classes


def run_pointing(
    subject: EvaluatedModel,
    methods: Sequence[Method],
    trials: Sequence[Trial],
    classes: Sequence[str],
    protocol: Protocol,
    out: Path,
    settings: Mapping[str, Any],
    *,
    listed: Mapping[str, Sequence[bool]] | None = None,
    batch: int = 8,
    device: str = "cpu",
    misses: int = 0,
    done: Callable[[int], None] = lambda pictures: None,
) -> list[Row]:
    """Plays, writes summary.csv, classes.csv and misses-METHOD.png into `out`, prints the table, returns the rows."""
    outputs = class_outputs(subject, classes)
    names = [method.name for method in methods]
    records = Records(out, {**settings, **described(subject), "methods": names, **asdict(protocol)})
    play(
        trials, subject.net, methods, subject.how, protocol, records,
        classes=classes, outputs=outputs, listed=listed, batch=batch, device=device, done=done,
    )  # fmt: skip
    rows = records.rows
    table = summary(rows, str(settings.get("dataset")), subject.network)
    write_csv(out / "summary.csv", table)
    write_csv(out / "classes.csv", per_class(rows, classes))
    known = any(row["published_all"] is not None for row in table)
    source = f" (published: {published.SOURCE})" if known else ""
    print_table(f"pointing game, {len(records.done)} pictures, percent{source}", table)
    pictures = {trial.picture.name: trial.picture for trial in trials}
    for method in methods:
        if worst := worst_misses(rows, method.name, misses):
            path = out / f"misses-{method.name}.png"
            draw_misses(worst, pictures, subject.net, method, subject.how, outputs, protocol.tolerance, path)
    return rows
