"""Weakly supervised localization (paper, section 4.2): a box about what a map marks, against annotated boxes.

The map is cut at alpha times its mean, and the tightest box about the largest connected region is the answer, right
where its intersection over union with an instance of the class is at least 0.5. alpha is chosen for every method on
held-out pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch.threads import BackgroundCalls
from ..errors import InputError
from ..extras import require
from ..images.maps import resize_maps
from .boxes import overlaps
from .datasets.base import Box, Picture
from .inputs import batches, network_size, read_ahead
from .methods import Method
from .records import Records, Row, write_csv
from .report import print_table
from .subject import EvaluatedModel, class_outputs, described

ALPHAS: tuple[float, ...] = tuple(0.5 * step for step in range(21))
"""Factors of the mean that are tried, 0 to 10."""
RIGHT = 0.5


def box_of(attribution: NDArray[np.floating], alpha: float) -> Box | None:
    """The tightest box about the largest 4-connected region of a map [H, W] above alpha times its mean.

    Negative values count as 0. Of regions of one size the first in row-major order; None where nothing is above.
    """
    image = require("scipy.ndimage", "eval", "localization")
    values = np.maximum(attribution, 0)
    regions, count = image.label(values > alpha * values.mean())
    if count == 0:
        return None
    largest = int(np.bincount(regions.ravel())[1:].argmax())
    rows, columns = image.find_objects(regions)[largest]
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def localize(
    pictures: Sequence[Picture],
    subject: EvaluatedModel,
    methods: Sequence[Method],
    records: Records,
    *,
    classes: Sequence[str],
    resize: str = "bicubic",
    batch: int = 8,
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> None:
    """Writes rows into `records`: image, label, class, method, and the best overlap for every alpha ("overlaps")."""
    outputs = class_outputs(subject, classes)
    waiting = [picture for picture in pictures if picture.instances and picture.name not in records.done]
    done(len(pictures) - len(waiting))

    def same(picture: Picture) -> object:
        return network_size(subject.how, subject.net, picture.size), len(picture.labels)

    groups = batches(waiting, same, batch)
    with records, BackgroundCalls(2) as judging:
        for group, x in read_ahead(groups, lambda picture: picture, subject.how, subject.net):
            x = x.to(device)
            targets = torch.tensor([[outputs[v] for v in picture.labels] for picture in group], device=device)
            maps_by_method = {method.name: method.maps(x, targets).cpu() for method in methods}
            judging.submit(lambda *row: records.add(_judge(*row)), group, maps_by_method, resize, classes)
            done(len(group))


def _judge(
    group: Sequence[Picture], maps_by_method: Mapping[str, torch.Tensor], resize: str, classes: Sequence[str]
) -> list[Row]:  # fmt: skip
    rows: list[Row] = []
    for index, picture in enumerate(group):
        for name, maps in maps_by_method.items():
            rows += _rows(picture, name, resize_maps(maps[index].float(), picture.size, resize), classes)
    return rows


def _rows(picture: Picture, method: str, maps: torch.Tensor, classes: Sequence[str]) -> list[Row]:
    rows = []
    for label, attribution in zip(picture.labels, maps.numpy(), strict=True):
        truth = np.array([instance.box for instance in picture.of(label)])
        boxes = [box_of(attribution, alpha) for alpha in ALPHAS]
        best = [0.0 if box is None else float(overlaps(truth, box).max()) for box in boxes]
        about = {"image": picture.name, "label": label, "class": classes[label], "method": method}
        rows.append({**about, "overlaps": best})
    return rows


def summary(rows: Sequence[Row], held_out: Sequence[str]) -> list[dict[str, Any]]:
    """Per method: alpha of the least error on the held-out pictures, and the error in percent there and on the rest.

    Raises InputError where one of the parts is empty.
    """
    apart = set(held_out)
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        parts = {
            part: np.array([r["overlaps"] for r in rows if r["method"] == method and (r["image"] in apart) is part])
            for part in (True, False)
        }
        if not len(parts[True]) or not len(parts[False]):
            raise InputError(
                f"{len(parts[True])} pictures held out for alpha, {len(parts[False])} to measure: both need some"
            )
        chosen, measured = (100 * (part < RIGHT).mean(0) for part in (parts[True], parts[False]))
        best = int(chosen.argmin())
        row = {"method": method, "alpha": ALPHAS[best], "error": float(measured[best])}
        table.append({**row, "error_held_out": float(chosen[best]), "pictures": len(parts[False])})
    return table


def run_localization(
    subject: EvaluatedModel,
    methods: Sequence[Method],
    pictures: Sequence[Picture],
    classes: Sequence[str],
    out: Path,
    settings: Mapping[str, Any],
    *,
    held_out: int,
    resize: str = "bicubic",
    batch: int = 8,
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> list[dict[str, Any]]:
    """Measures, writes summary.csv and alphas.csv into `out`, prints and returns the table.

    The first `held_out` pictures choose alpha. Raises InputError where none remain.
    """
    if not 0 < held_out < len(pictures):
        raise InputError(f"--held-out {held_out}: of {len(pictures)} pictures at least one must be in either part")
    names = [method.name for method in methods]
    records = Records(out, {**settings, **described(subject), "methods": names, "resize": resize})
    localize(
        pictures, subject, methods, records,
        classes=classes, resize=resize, batch=batch, device=device, done=done,
    )  # fmt: skip
    table = summary(records.rows, [picture.name for picture in pictures[:held_out]])
    write_csv(out / "summary.csv", table)
    write_csv(out / "alphas.csv", _sweep(records.rows))
    print_table(f"localization, {table[0]['pictures']} pictures, error in percent", table)
    return table


def _sweep(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The error of every method for every alpha, over all pictures."""
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        errors = 100 * (np.array([row["overlaps"] for row in rows if row["method"] == method]) < RIGHT).mean(0)
        table += [{"method": method, "alpha": a, "error": float(e)} for a, e in zip(ALPHAS, errors, strict=True)]
    return table
