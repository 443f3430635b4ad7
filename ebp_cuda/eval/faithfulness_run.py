"""`ebp-cuda eval faithfulness`: the three measures over a folder of pictures, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, UnsupportedError
from ..images.preprocess import load_image
from .datasets.base import Picture
from .faithfulness import (
    STEPS,
    area,
    cascade,
    curves,
    layers_by_size,
    probabilities,
    rank_correlation,
    weighted_layers,
)
from .inputs import read
from .methods import Method, build_methods
from .records import Records, Row, write_csv
from .report import print_table
from .subject import EvaluatedModel, described

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
RANDOM = "random order"
"""The method that every other should beat: pixels in random order."""


@dataclass(frozen=True)
class FaithfulnessSettings:
    """What is measured."""

    steps: int = STEPS
    stages: int = 6
    """Of the randomisation, 0 for none."""
    layers: tuple[str, ...] = ()
    """Between which maps of MWP and c-MWP are compared; by default one of every plane size."""
    seed: int = 0


def pictures_in(folder: Path) -> list[Picture]:
    """The photos of a folder, by name. Raises InputError for none and for unreadable ones."""
    if not folder.is_dir():
        raise InputError(f"--images {folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"--images {folder}: no photo in it ({', '.join(SUFFIXES)})")
    pictures = []
    for path in files:
        height, width = load_image(path, upright=False).shape[:2]
        pictures.append(Picture(path.name, path, (height, width), ()))
    return pictures


class Measure:
    """One subject and its methods, with everything that stays the same over pictures."""

    def __init__(
        self,
        subject: EvaluatedModel,
        methods: Sequence[Method],
        settings: FaithfulnessSettings,
        rules: str,
        device: str,
    ) -> None:
        self.subject, self.methods, self.settings, self.device = subject, methods, settings, device
        net, names = subject.net, [method.name for method in methods]
        self.top = net.graph.resolve(subject.layers.top)[-1] if subject.layers.top else net.default_top()
        self.score = probabilities(net, self.top, device)
        self.random_nets: list[tuple[str, list[Method]]] = []
        stages = min(settings.stages, len(weighted_layers(net.graph, self.top)))
        for layer, other in cascade(net, self.top, stages, settings.seed) if stages else ():
            built, _ = build_methods(other, names, subject.layers, rules=rules, device=device)
            self.random_nets.append((layer, built))
        self.at_layers = self._at_layers(names, rules)

    def _at_layers(self, names: Sequence[str], rules: str) -> dict[str, dict[str, Method]]:
        """Method name -> layer -> the method there, for the methods that have a layer to choose."""
        net, curves = self.subject.net, {}
        for name in [name for name in names if name in ("mwp", "c-mwp")]:
            at: dict[str, Method] = {}
            for layer in self.settings.layers or layers_by_size(net, self.top):
                try:
                    built, _ = build_methods(
                        net, [name], replace(self.subject.layers, layer=layer), rules=rules, device=self.device
                    )
                    at[layer] = built[0]
                except (InputError, UnsupportedError):
                    if self.settings.layers:  # one that was asked for by name
                        raise
            curves[name] = at
        return curves

    def rows(self, picture: Picture, target: int | None) -> list[Row]:
        """Every number of one picture; target None is the class of the highest score."""
        x = read(picture, self.subject.how, self.subject.net)
        before = self.score(x)[0]
        label = int(before.argmax()) if target is None else target
        about = {"image": picture.name, "target": label, "probability": float(before[label])}
        maps = {method.name: self._map(method, x, label) for method in self.methods}
        rows = [{**about, **row} for row in self._curves(x, label, maps)]
        rows += [{**about, **row} for row in self._random(x, label, maps)]
        return rows + [{**about, **row} for row in self._between_layers(x, label)]

    def _map(self, method: Method, x: torch.Tensor, label: int) -> torch.Tensor:
        return method.maps(x.to(self.device), torch.tensor([[label]], device=self.device))[0, 0].cpu().float()

    def _curves(self, x: torch.Tensor, label: int, maps: Mapping[str, torch.Tensor]) -> list[Row]:
        rows = []
        for name, attribution in {**maps, RANDOM: torch.zeros(1, 1)}.items():
            deletion, insertion = curves(x, attribution, label, self.score, self.settings.steps)
            for measure, curve in (("deletion", deletion), ("insertion", insertion)):
                rows.append(_row(name, measure, area(curve)))
        return rows

    def _random(self, x: torch.Tensor, label: int, maps: Mapping[str, torch.Tensor]) -> list[Row]:
        return [
            _row(method.name, "randomised", rank_correlation(maps[method.name], self._map(method, x, label)), layer)
            for layer, methods in self.random_nets
            for method in methods
        ]

    def _between_layers(self, x: torch.Tensor, label: int) -> list[Row]:
        rows = []
        for name, at in self.at_layers.items():
            maps = {layer: self._map(method, x, label) for layer, method in at.items()}
            for one, other in combinations(maps, 2):
                rows.append(_row(name, "layers", rank_correlation(maps[one], maps[other]), one, other))
        return rows


def _row(method: str, measure: str, value: float, layer: str = "", other: str = "") -> Row:
    return {"method": method, "measure": measure, "layer": layer, "other_layer": other, "value": value}


def summaries(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Tables "faithfulness" (areas, and correlation at the first and last stage), "randomised" and "layers"."""

    def mean(**where: str) -> float | None:
        values = [row["value"] for row in rows if all(row[key] == value for key, value in where.items())]
        values = [value for value in values if not np.isnan(value)]
        return float(np.mean(values)) if values else None

    methods = list(dict.fromkeys(row["method"] for row in rows))
    stages = list(dict.fromkeys(row["layer"] for row in rows if row["measure"] == "randomised"))
    plain = [
        {"method": name, "deletion": mean(method=name, measure="deletion"),
         "insertion": mean(method=name, measure="insertion")}
        for name in methods
    ]  # fmt: skip
    random = [
        {"method": name, **{stage: mean(method=name, measure="randomised", layer=stage) for stage in stages}}
        for name in methods
        if name != RANDOM
    ]
    pairs = dict.fromkeys((r["method"], r["layer"], r["other_layer"]) for r in rows if r["measure"] == "layers")
    between = [
        {"method": name, "layer": one, "other_layer": other,
         "correlation": mean(method=name, measure="layers", layer=one, other_layer=other)}
        for name, one, other in pairs
    ]  # fmt: skip
    return {"faithfulness": plain, "randomised": random if stages else [], "layers": between}


def run_faithfulness(
    subject: EvaluatedModel,
    methods: Sequence[Method],
    pictures: Sequence[Picture],
    out: Path,
    asked: Mapping[str, Any],
    settings: FaithfulnessSettings,
    *,
    target: int | None = None,
    rules: str = "caffe",
    device: str = "cpu",
    done: Callable[[int], None] = lambda pictures: None,
) -> dict[str, list[dict[str, Any]]]:
    """Measures, writes a csv per table into `out`, prints and returns the tables."""
    names = [method.name for method in methods]
    kept = {"steps": settings.steps, "stages": settings.stages, "layers": settings.layers, "seed": settings.seed}
    records = Records(out, {**asked, **described(subject), **kept, "methods": names, "target": target})
    waiting = [picture for picture in pictures if picture.name not in records.done]
    done(len(pictures) - len(waiting))
    with records:
        measure = Measure(subject, methods, settings, rules, device) if waiting else None
        for picture in waiting:
            assert measure is not None
            records.add(measure.rows(picture, target))
            done(1)
    tables = summaries(records.rows)
    titles = {
        "faithfulness": f"area under the probability, {len(records.done)} pictures (deletion low, insertion high)",
        "randomised": "rank correlation with the map of the trained network; random from the top down to the layer",
        "layers": "rank correlation of a method's maps at two layers",
    }
    for name, table in tables.items():
        if table:
            write_csv(out / f"{name}.csv", table)
            print_table(titles[name], table, digits=3)
    return tables
