"""Phrases to regions (paper, section 4.3): words name classes, their maps are summed, boxes are ranked by the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..images.maps import resize_maps
from .boxes import Boxes, overlaps
from .datasets.flickr30k import Captioned, Phrase
from .inputs import read
from .methods import Method
from .pointing import boxes_mask, distance_to, maximum, within
from .proposals import best, grid
from .records import Records, Row, write_csv
from .report import print_table
from .subject import EvaluatedModel, described
from .words import Words, classes_of

RECALL_AT = (1, 5, 10)
RIGHT = 0.5


@dataclass(frozen=True)
class Ranking:
    """How boxes are ranked and points judged."""

    gamma: float = 0.5
    """A box scores the map's sum inside over its area to this power: 0 likes large boxes, 1 the densest."""
    apart: float = 0.7
    """A box that overlaps a better one by more is left out."""
    resize: str = "bicubic"
    tolerance: float = 15.0
    """Pixels about the maximum for the pointing game with phrases."""


def associate(
    captioned: Sequence[Captioned],
    subject: EvaluatedModel,
    methods: Sequence[Method],
    words: Words,
    records: Records,
    ranking: Ranking,
    *,
    proposals: Mapping[str, Boxes] | None = None,
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> None:
    """Writes a row for every phrase and method into `records`.

    A row: image, phrase, type, method, known (a word of it names a class), rank (of the first box that is right, from
    1; 0 where none of the ten best is), found (whether any box is right), hit (pointing). proposals: by picture name;
    boxes on a grid where None. Raises InputError for a picture that `proposals` lacks.
    """
    waiting = [entry for entry in captioned if entry.phrases and entry.picture.name not in records.done]
    done(len(captioned) - len(waiting))
    with records:
        for entry in waiting:
            picture = entry.picture
            if proposals is not None and picture.name not in proposals:
                raise InputError(f"--proposals: no boxes for {picture.name}")
            boxes = grid(picture.size) if proposals is None else proposals[picture.name]
            named = [classes_of(phrase.text, words) for phrase in entry.phrases]
            classes = sorted({index for indices in named for index in indices})
            maps_by_method: dict[str, torch.Tensor] = {}
            if classes:
                x, targets = read(picture, subject.how, subject.net), torch.tensor([classes])
                maps_by_method = {m.name: m.maps(x.to(device), targets.to(device))[0].cpu() for m in methods}
            rows: list[Row] = []
            for method in methods:
                for phrase, indices in zip(entry.phrases, named, strict=True):
                    planes = [maps_by_method[method.name][classes.index(index)] for index in indices]
                    rows.append({**_row(entry, phrase, planes, boxes, ranking), "method": method.name})
            records.add(rows)
            done(1)


def _row(
    entry: Captioned, phrase: Phrase, planes: Sequence[torch.Tensor], boxes: Boxes, ranking: Ranking
) -> dict[str, Any]:  # fmt: skip
    """One phrase by one method; planes: the maps of the classes that it names."""
    about = {"image": entry.picture.name, "phrase": phrase.text, "type": phrase.types[0], "known": bool(planes)}
    any_right = bool((overlaps(boxes, phrase.box) >= RIGHT).any())
    judged: dict[str, Any] = {"rank": 0, "hit": False}
    if planes:
        judged = _judged(torch.stack(list(planes)).sum(0), phrase, entry.picture.size, boxes, ranking)
    return {**about, "found": any_right, **judged}


def _judged(
    attribution: torch.Tensor, phrase: Phrase, size: tuple[int, int], boxes: Boxes, ranking: Ranking
) -> dict[str, Any]:
    shown = resize_maps(attribution.float().clamp_min(0), size, ranking.resize).numpy()
    ranked = best(shown, boxes, ranking.gamma, max(RECALL_AT), ranking.apart)
    right = np.flatnonzero(overlaps(ranked, phrase.box) >= RIGHT)
    distance = distance_to(maximum(shown), boxes_mask(phrase.boxes, size))
    return {"rank": int(right[0]) + 1 if len(right) else 0, "hit": within(distance, ranking.tolerance)}


def summary(rows: Sequence[Row], by: str | None = None) -> list[dict[str, Any]]:
    """Per method (and value of the column `by`): recall at 1, 5, 10, pointing, how many phrases name a class, and the
    recall that a perfect ranking of the boxes would have; percent of all phrases."""
    table = []
    groups = dict.fromkeys((row["method"], row[by] if by else "") for row in rows)
    for method, value in groups:
        own = [row for row in rows if row["method"] == method and (by is None or row[by] == value)]
        ranks = np.array([row["rank"] for row in own])
        recalls = {f"recall_at_{k}": 100 * float(((ranks > 0) & (ranks <= k)).mean()) for k in RECALL_AT}
        shares = {name: 100 * float(np.mean([row[key] for row in own])) for name, key in _SHARES.items()}
        label = {"method": method, by: value} if by else {"method": method}
        table.append({**label, **recalls, **shares, "phrases": len(own)})
    return table


_SHARES = {"pointing": "hit", "known": "known", "best_possible": "found"}


def run_phrases(
    subject: EvaluatedModel,
    methods: Sequence[Method],
    captioned: Sequence[Captioned],
    words: Words,
    out: Path,
    settings: Mapping[str, Any],
    ranking: Ranking,
    *,
    proposals: Mapping[str, Boxes] | None = None,
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> list[dict[str, Any]]:
    """Measures, writes summary.csv and types.csv into `out`, prints and returns the table."""
    names = [method.name for method in methods]
    records = Records(out, {**settings, **described(subject), "methods": names, **asdict(ranking)})
    associate(
        captioned, subject, methods, words, records, ranking, proposals=proposals, device=device, done=done
    )  # fmt: skip
    table = summary(records.rows)
    write_csv(out / "summary.csv", table)
    write_csv(out / "types.csv", summary(records.rows, by="type"))
    print_table(f"phrases, {len(records.done)} pictures, percent", table)
    return table
