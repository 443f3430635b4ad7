"""The network that an evaluation is about: loaded, with its preprocessing and the layers where the methods look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..api import ExcitationBackprop
from ..batch.identity import graph_digest
from ..errors import InputError
from ..images.preprocess import Preprocess
from ..models import digits, open_model
from ..models import model as known_model
from ..models.opening import DIGITS
from ..net import Net
from ..places import UNSET
from .methods import Layers


@dataclass(frozen=True)
class EvaluatedModel:
    """A network and how it is asked."""

    net: Net
    how: Preprocess
    layers: Layers
    network: str | None
    """Its name in the catalogue, by which published numbers are found; None where unknown."""
    rules: str = "auto"
    """The rule set of (c-)MWP."""
    chosen: bool = False
    """Whether nobody named the layer."""


def open_subject(
    model: str,
    weights: Path | None,
    like: str | None,
    layers: Mapping[str, str | None],
    changes: Mapping[str, Any],
    rules: str = "auto",
) -> EvaluatedModel:
    """The network that `models.open_model` gives, where the maps are read as the caller says or as it is chosen.

    Args:
        model: as for `open_model`, as are the weights.
        weights: of the network.
        like: a network of the catalogue, whose layers and preprocessing are taken where nothing else is given.
        layers: fields of `Layers`, None for what is not given.
        changes: preprocessing fields, as of the command line.
        rules: of `ExcitationBackprop`.

    Raises:
        InputError: no such layer, and whatever opening refuses.
    """
    net = open_model(model, weights)
    default: dict[str, str | None] = {}
    if like is not None:
        entry = known_model(like)
        default = {"layer": entry.layer, "contrast": entry.contrast_layer}
    elif model == DIGITS and not Path(model).is_file():
        default = {"layer": digits.LAYER, "contrast": digits.CONTRAST_LAYER}
    named = {**default, **{key: value for key, value in layers.items() if value is not None}}
    setting = ExcitationBackprop(
        net, named.get("layer"), named.get("contrast") or UNSET, rules, top=named.get("top")
    ).setting
    for name in (value for value in named.values() if value is not None):
        net.graph.resolve(name)
    how = Preprocess.from_dict(net.preprocess).override(**changes)
    where = Layers(str(setting.layer), setting.contrast_layer, named.get("top"), named.get("cam"))
    return EvaluatedModel(net, how, where, like, setting.rules, named.get("layer") is None)


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
