"""The network that an evaluation is about: loaded, with its preprocessing and the layers where the methods look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..batch.identity import graph_digest
from ..errors import InputError
from ..images.preprocess import Preprocess
from ..net import Net, load
from .methods import Layers

DIGITS = "digits"
"""`--model digits`: the trained network that comes with this package."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A network and how it is asked."""

    net: Net
    how: Preprocess
    layers: Layers
    network: str | None
    """Its name in the catalogue, by which published numbers are found; None where unknown."""


def open_subject(
    model: Path, weights: Path | None, like: str | None, layers: Mapping[str, str | None], changes: Mapping[str, Any]
) -> EvaluatedModel:
    """The network in `model` (and `weights`), or the digits network for "digits".

    like: a network of the catalogue, whose layers and preprocessing are taken where nothing else is given. layers:
    fields of `Layers`, None for what is not given. changes: preprocessing fields, as of the command line.
    Raises InputError where the layer of the maps remains unknown, and whatever loading refuses.
    """
    from ..models import digits
    from ..models import model as known_model

    default: dict[str, str | None] = {}
    if str(model) == DIGITS and not model.exists():
        net = digits.load()
        default = {"layer": digits.LAYER, "contrast": digits.CONTRAST_LAYER}
    else:
        net = load(model, weights)
    if like is not None:
        entry = known_model(like)
        default = {"layer": entry.layer, "contrast": entry.contrast_layer}
    chosen = {**default, **{key: value for key, value in layers.items() if value is not None}}
    if chosen.get("layer") is None:
        raise InputError("--layer: where are the maps read? Name a layer (`ebp-cuda layers` lists all) or give --like")
    for name in (value for value in chosen.values() if value is not None):
        net.graph.resolve(name)
    how = Preprocess.from_dict(net.preprocess).override(**changes)
    where = Layers(str(chosen["layer"]), chosen.get("contrast"), chosen.get("top"), chosen.get("cam"))
    return EvaluatedModel(net, how, where, like)


def output_count(subject: EvaluatedModel) -> int:
    """How many classes the network scores."""
    top = subject.net.graph.resolve(subject.layers.top)[-1] if subject.layers.top else subject.net.default_top()
    return subject.net.shapes()[top][1]


def class_outputs(subject: EvaluatedModel, classes: Sequence[str]) -> list[int]:
    """The network's output for every class of a data set: by name where its labels are known, else in order.

    Raises InputError where neither fits.
    """
    net, count = subject.net, output_count(subject)
    names = [label.split(",")[0].strip().casefold() for label in net.labels or ()]
    if names and all(name.casefold() in names for name in classes):
        return [names.index(name.casefold()) for name in classes]
    if count == len(classes):
        return list(range(count))
    raise InputError(
        f"{net.graph.origin} has {count} outputs and the data set {len(classes)} classes "
        f"({', '.join(classes[:3])}, ...); a network trained for the data set was wanted"
    )


def described(subject: EvaluatedModel) -> dict[str, Any]:
    """What a record keeps of a subject, so that results of two networks are never mixed."""
    return {"model": graph_digest(subject.net.graph), "preprocess": subject.how.to_dict(), **asdict(subject.layers)}
