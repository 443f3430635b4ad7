"""The pointing game over a data set: every method, every class of a picture from one pass, resumable.

Pictures are read ahead and points judged behind the passes, in threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch.threads import BackgroundCalls
from ..errors import InputError
from ..extras import require
from ..images.maps import resize_maps
from ..images.preprocess import Preprocess
from ..net import Net
from . import published
from .datasets.base import Picture
from .difficult import is_difficult
from .inputs import batches, network_size, read_ahead
from .methods import Method
from .pointing import PointingGame, distance_to, maximum, within
from .records import Records, Row


@dataclass(frozen=True)
class Protocol:
    """How a map becomes a point and a point a hit."""

    resize: str = "bicubic"
    """How a map comes to the size of the picture: "bicubic" (the original) or "bilinear" (TorchRay)."""
    closed: bool = True
    """Whether a pixel exactly on the circle is a hit: yes in the original, no in TorchRay."""
    tolerance: float = 15.0
    """Radius of the circle in pixels of the picture."""
    smooth: float = 0.02
    """Deviation of the Gaussian over maps of the input's size, as a part of the picture's longer side; 0 for none."""

    def point(self, attribution: torch.Tensor, size: tuple[int, int], smooths: bool) -> tuple[int, int]:
        """Row and column of the maximum of a map [h, w] brought to `size`; negative parts are cut off before."""
        # the original cuts before it resizes: bicubic next to strong negative values overshoots
        shown = resize_maps(attribution.float().clamp_min(0), size, self.resize).numpy()
        if smooths and self.smooth > 0:
            filters = require("scipy.ndimage", "eval", "smoothing maps")
            shown = filters.gaussian_filter(shown, self.smooth * max(size))
        return maximum(shown)


PROTOCOLS = {"original": Protocol(), "torchray": Protocol(resize="bilinear", closed=False)}


@dataclass(frozen=True)
class Trial:
    """A picture and the classes that are asked for on it."""

    picture: Picture
    labels: tuple[int, ...]


def play(
    trials: Sequence[Trial],
    net: Net,
    methods: Sequence[Method],
    how: Preprocess,
    protocol: Protocol,
    records: Records,
    *,
    classes: Sequence[str],
    outputs: Sequence[int] | None = None,
    listed: Mapping[str, Sequence[bool]] | None = None,
    batch: int = 8,
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> None:
    """Asks every method for every trial that `records` does not hold yet, and writes rows into it.

    A row: image, label, class, method, row, column, distance (pixels from the point to the nearest instance), hit,
    difficult, area (the class's share of the picture). outputs: the network's output for every class, the same by
    default (`subject.class_outputs`). listed: the difficult subset from a file, by picture name; by
    rule where None. Raises InputError for pictures that are
    not as annotated.
    """
    known = range(len(classes)) if outputs is None else outputs
    open_trials = [trial for trial in trials if trial.labels and trial.picture.name not in records.done]
    done(len(trials) - len(open_trials))

    def same(trial: Trial) -> object:
        return network_size(how, net, trial.picture.size), len(trial.labels)

    groups = batches(open_trials, same, batch)
    with records, BackgroundCalls(2) as judging:
        for group, x in read_ahead(groups, lambda trial: trial.picture, how, net):
            x = x.to(device)
            targets = torch.tensor([[known[label] for label in trial.labels] for trial in group], device=device)
            maps_by_method = {method: method.maps(x, targets).cpu() for method in methods}
            judging.submit(lambda *row: records.add(_judge(*row)), group, maps_by_method, protocol, classes, listed)
            done(len(group))


def _judge(
    group: Sequence[Trial],
    maps_by_method: Mapping[Method, torch.Tensor],
    protocol: Protocol,
    classes: Sequence[str],
    listed: Mapping[str, Sequence[bool]] | None,
) -> list[Row]:
    rows: list[Row] = []
    for index, trial in enumerate(group):
        for column, label in enumerate(trial.labels):
            truth = trial.picture.mask_of(label)
            about = _about(trial.picture, label, truth, classes, listed)
            for method, maps in maps_by_method.items():
                point = protocol.point(maps[index, column], trial.picture.size, method.smooths)
                rows.append({**about, "method": method.name, **_judged(point, truth, protocol)})
    return rows


def _about(
    picture: Picture,
    label: int,
    truth: NDArray[np.bool_],
    classes: Sequence[str],
    listed: Mapping[str, Sequence[bool]] | None,
) -> Row:
    if listed is not None and picture.name not in listed:
        raise InputError(f"the difficult list has no line for {picture.name}")
    hard = is_difficult(picture, label, truth) if listed is None else bool(listed[picture.name][label])
    area = float(truth.mean())
    return {"image": picture.name, "label": label, "class": classes[label], "difficult": hard, "area": area}


def _judged(point: tuple[int, int], truth: NDArray[np.bool_], protocol: Protocol) -> dict[str, Any]:
    distance = distance_to(point, truth)
    hit = within(distance, protocol.tolerance, protocol.closed)
    return {"row": point[0], "column": point[1], "distance": distance, "hit": hit}


def games(rows: Sequence[Row]) -> Iterator[tuple[str, PointingGame, PointingGame]]:
    """(method, the game over all rows, the game over the difficult ones) for every method, in the order of the rows."""
    for name in dict.fromkeys(row["method"] for row in rows):
        every, hard = PointingGame(), PointingGame()
        for row in rows:
            if row["method"] == name:
                every.count(row["label"], row["hit"])
                if row["difficult"]:
                    hard.count(row["label"], row["hit"])
        yield name, every, hard


def summary(rows: Sequence[Row], dataset: str, network: str | None) -> list[dict[str, Any]]:
    """Per method: mean accuracy over classes in percent, All and Difficult, the same over trials, and the published."""
    table = []
    for name, every, hard in games(rows):
        known = published.pointing(dataset, network, name) or (None, None)
        table.append(
            {
                "method": name,
                "all": 100 * every.mean_accuracy(),
                "difficult": 100 * hard.mean_accuracy(),
                "all_trials": 100 * every.overall_accuracy(),
                "difficult_trials": 100 * hard.overall_accuracy(),
                "trials": every.trials,
                "trials_difficult": hard.trials,
                "published_all": known[0],
                "published_difficult": known[1],
            }
        )
    return table


def per_class(rows: Sequence[Row], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per method and class: accuracy in percent and trials, All and Difficult."""
    table = []
    for name, every, hard in games(rows):
        accuracies = every.accuracy(), hard.accuracy()
        for label in accuracies[0]:
            table.append(
                {
                    "method": name,
                    "class": classes[label],
                    "all": 100 * accuracies[0][label],
                    "trials": every.trials_of(label),
                    "difficult": 100 * accuracies[1][label] if label in accuracies[1] else None,
                    "trials_difficult": hard.trials_of(label),
                }
            )
    return table
