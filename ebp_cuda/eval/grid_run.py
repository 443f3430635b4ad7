"""The grid pointing game over mosaics: every method, every cell, resumable; a table with standard errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..api import ExcitationBackprop
from ..errors import UnsupportedError
from ..images.maps import resize_maps
from ..images.preprocess import Preprocess
from ..net import Net
from . import baselines
from .baselines import Maps
from .graph_module import GraphModule
from .grid import Mosaic, place, standard_error
from .grid_photos import prepared
from .methods import Layers, last_plane
from .records import Records, Row

METHODS = ("c-mwp", "c-mwp-sum", "mwp", "gradient", "input-x-gradient", "integrated", "guided", "grad-cam", "lrp")
"""The methods that are compared, by name; "all" on the command line."""


@dataclass(frozen=True)
class GridMethod:
    """One row of the table: a method, and where it is read."""

    name: str
    layer: str
    """"" for methods whose map has the size of the image."""
    maps: Maps

    @property
    def key(self) -> str:
        """Name and layer in one word, for the record."""
        return f"{self.name} @ {self.layer}" if self.layer else self.name


def grid_methods(
    net: Net, names: Iterable[str], layers: Sequence[str], contrast: str, rule_sets: Sequence[str]
) -> tuple[list[GridMethod], dict[str, str]]:
    """The methods of a network, MWP and c-MWP once for every layer and rule set.

    Args:
        net: the network, at the size of the mosaic.
        names: of METHODS.
        layers: where MWP and c-MWP are read.
        contrast: where c-MWP subtracts.
        rule_sets: of "caffe" and "conserving". The name of a method says which where there are two.

    Returns:
        The methods, and by name the reasons of those that this network does not allow.
    """
    methods: list[GridMethod] = []
    refused: dict[str, str] = {}
    for name in names:
        try:
            if name in ("c-mwp", "mwp"):
                methods += _excitation(net, name, layers, contrast, rule_sets)
            elif name == "c-mwp-sum":
                methods += _sums(_excitation(net, "c-mwp", layers, contrast, rule_sets), "+".join(layers))
            else:
                methods.append(_compared(net, name, layers[0], contrast))
        except UnsupportedError as error:
            refused[name] = str(error)
    return methods, refused


def _excitation(
    net: Net, name: str, layers: Sequence[str], contrast: str, rule_sets: Sequence[str]
) -> Iterable[GridMethod]:
    for rules in rule_sets:
        shown = name if len(rule_sets) == 1 else f"{name} {rules}"
        for layer in layers:
            eb = ExcitationBackprop(net, layer, contrast if name == "c-mwp" else None, rules=rules)
            yield GridMethod(shown, layer, eb.attribute)


def _sums(methods: Iterable[GridMethod], layers: str) -> Iterable[GridMethod]:
    by_rules: dict[str, list[Maps]] = {}
    for method in methods:
        by_rules.setdefault(method.name, []).append(method.maps)
    for name, maps in by_rules.items():
        yield GridMethod(name.replace("c-mwp", "c-mwp-sum"), layers, sum_of_layers(maps))


def sum_of_layers(maps: Sequence[Maps]) -> Maps:
    """The mean of the maps of several layers, each divided by its own mass and brought to the size of the largest."""

    def summed(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        planes = [one(x, classes) for one in maps]
        height, width = (max(plane.shape[axis] for plane in planes) for axis in (2, 3))
        scaled = [plane / plane.abs().sum((2, 3), keepdim=True).clamp_min(1e-30) for plane in planes]
        return torch.stack([resize_maps(plane, (height, width), "bilinear") for plane in scaled]).mean(0)

    return summed


def _compared(net: Net, name: str, layer: str, contrast: str) -> GridMethod:
    top = net.default_top()
    if name == "lrp":
        return GridMethod(name, "", baselines.lrp(net.graph, top, "epsilon"))
    module = GraphModule(net.graph, top)
    if name == "grad-cam":
        plane = last_plane(net, Layers(layer, contrast))
        return GridMethod(name, plane, baselines.grad_cam(module, plane))
    makers: dict[str, Callable[[GraphModule], Maps]] = {
        "gradient": baselines.gradient,
        "input-x-gradient": baselines.input_x_gradient,
        "integrated": baselines.integrated_gradients,
        "guided": baselines.guided_backprop,
    }
    return GridMethod(name, "", makers[name](module))


def play_grid(
    mosaics: Sequence[Mosaic],
    methods: Sequence[GridMethod],
    how: Preprocess,
    records: Records,
    done: Callable[[int], None] = lambda mosaics: None,
) -> None:
    """Asks every method for the class of every cell of the mosaics that `records` does not hold yet.

    A row: image (the mosaic's name), cell, photo, label, method, layer, mass, hit, row, column.
    """
    missing = [mosaic for mosaic in mosaics if mosaic.name not in records.done]
    done(len(mosaics) - len(missing))
    with records:
        for mosaic in missing:
            x = prepared([mosaic.image], how)
            classes = torch.tensor([mosaic.labels])
            records.add([row for method in methods for row in _rows(mosaic, method, method.maps(x, classes)[0])])
            done(1)


def _rows(mosaic: Mosaic, method: GridMethod, maps: torch.Tensor) -> Iterable[Row]:
    size = mosaic.image.shape[0]
    for cell, (tile, attribution) in enumerate(zip(mosaic.tiles, maps, strict=True)):
        placement = place(attribution.detach(), cell, mosaic.cells, size)
        about = {"image": mosaic.name, "cell": cell, "photo": tile.photo, "label": tile.label}
        yield {**about, "method": method.name, "layer": method.layer, **vars(placement)}


def grid_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per method and layer: mean mass and share of maxima in the right cell, with standard errors.

    Columns: method, layer, mass, mass_se, maximum, maximum_se (over mosaics), mass_se_photos, maximum_se_photos (over
    photos: what another choice of photos would change), pairs.
    """
    table = []
    for method, layer in dict.fromkeys((row["method"], row["layer"]) for row in rows):
        own = [row for row in rows if (row["method"], row["layer"]) == (method, layer)]
        entry: dict[str, Any] = {"method": method, "layer": layer}
        mosaics, photos = [row["image"] for row in own], [row["photo"] for row in own]
        for name, values in (("mass", [row["mass"] for row in own]), ("maximum", [float(row["hit"]) for row in own])):
            entry[name] = sum(values) / len(values)
            entry[f"{name}_se"] = standard_error(values, mosaics)
            entry[f"{name}_se_photos"] = standard_error(values, photos)
        table.append({**entry, "pairs": len(own)})
    return table
