"""The parameters of a network: from a weights file that must fit it, or from its fillers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from ...errors import ModelError, nearest_names
from .blobs import Weights
from .fillers import fill
from .layer import Layer
from .layers import LAYER_TYPES, Param
from .net import CaffeNet
from .reading import read_weights
from .shapes import Shapes, context_of

MAX_FILLED = 160_000_000
"""Parameters that fillers may make up, 4 bytes each: VGG16 has 138 million, VGG19 144."""


@dataclass
class ImportReport:
    """What an import did beyond the layers it translated."""

    missing: list[str] = field(default_factory=list)
    """Layers whose parameters the weights file lacks; they hold filler values (only with allow_missing)."""
    batch_statistics: list[str] = field(default_factory=list)
    """BatchNorm layers that ask for the statistics of the batch (with stored_statistics, they got the stored ones)."""
    not_finite: list[str] = field(default_factory=list)
    """Parameters "LAYER/I" that hold a NaN or an infinity."""
    unused: list[str] = field(default_factory=list)
    """Layers of the weights file, with parameters, that the network does not have."""
    dropped: list[str] = field(default_factory=list)
    """Layers that only train or measure, and were left out."""
    unknown: list[str] = field(default_factory=list)
    """Fields that the schema does not know, with file, line and layer."""
    shared: dict[str, str] = field(default_factory=dict)
    """Parameter "LAYER/I" -> the "LAYER/I" whose array it shares by name."""


def parameters(
    net: CaffeNet,
    shapes: Shapes,
    caffemodel: str | Path | None,
    allow_missing: bool,
    seed: int,
    report: ImportReport,
    weights: Weights | None = None,
    allowed_by: str = "allow_missing=True",
) -> Iterator[tuple[Layer, list[np.ndarray]]]:
    """The layers that compute, in file order, each with the arrays of its parameters, from the file or the fillers.

    weights: what the file holds, where it has been read already. Everything is checked before the first layer comes;
    made-up parameters are drawn when their layer does. allowed_by: what a message says to do for allow_missing.
    """
    if weights is None and caffemodel is not None:
        weights = read_weights(caffemodel, may_be_empty=True)
    for layer in net.layers:
        layer.stored = tuple(blob.data.size for blob in (weights or {}).get(layer.name, ()))
    wanted = {layer.index: LAYER_TYPES[layer.type].params(context_of(net, layer, shapes)) for layer in net.kept()}
    stored: dict[int, list[np.ndarray]] = {}
    missing, room = [], MAX_FILLED
    for layer in net.kept():
        params = wanted[layer.index]
        if weights is not None and params and weights.get(layer.name):
            stored[layer.index] = _stored(layer, params, weights, f"{caffemodel} does not fit {net.where(layer)}")
        elif params:
            missing.append(layer.name)
            room -= sum(prod(p.shape) for p in params)
            if room < 0:
                raise _too_many(net, layer, MAX_FILLED - room)
    if weights is not None:
        if missing and not weights:
            raise ModelError(f"{caffemodel}: empty, or without layers; wanted the parameters of {net.origin}")
        if missing and not allow_missing:
            raise _missing(net, caffemodel, weights, missing, allowed_by)
        _report_misfits(net, weights, missing, report)
    rng = np.random.default_rng(seed)
    owners: dict[str, tuple[str, np.ndarray]] = {}
    for layer in net.kept():
        where = net.where(layer)
        if layer.index in stored:
            arrays = stored.pop(layer.index)
            report.not_finite += [f"{layer.name}/{i}" for i, array in enumerate(arrays) if not np.isfinite(array).all()]
        else:
            arrays = [fill(p.shape, p.filler, p.default, rng, where) for p in wanted[layer.index]]
        yield layer, _share(layer, arrays, owners, report, where)


def _too_many(net: CaffeNet, layer: Layer, count: int) -> ModelError:
    return ModelError(
        f"{net.where(layer)}: with it, the network has {count:,} parameters without weights; wanted a weights file, "
        f"or at most {MAX_FILLED:,}"
    )


def _missing(
    net: CaffeNet, caffemodel: str | Path | None, weights: Weights, missing: list[str], allowed_by: str
) -> ModelError:
    more = f" and {len(missing) - 1} more" if missing[1:] else ""
    return ModelError(
        f"{caffemodel}: no parameters for layer '{missing[0]}' of {net.origin}{more}"
        f"{nearest_names(missing[0], weights)}; {allowed_by} lets them keep what their fillers make up"
    )


def _report_misfits(net: CaffeNet, weights: Weights, missing: list[str], report: ImportReport) -> None:
    report.missing += missing
    known = {layer.name for layer in net.layers}
    report.unused += [name for name, blobs in weights.items() if blobs and name not in known]


def _stored(layer: Layer, params: Sequence[Param], weights: Weights, what: str) -> list[np.ndarray]:
    blobs = weights[layer.name]
    if len(blobs) != len(params):
        raise ModelError(f"{what}: got {len(blobs)} parameter blobs, wanted {len(params)}")
    for index, (blob, param) in enumerate(zip(blobs, params, strict=True)):
        if not (blob.data.size == prod(param.shape) if param.loose else blob.fits(param.shape)):
            raise ModelError(f"{what}: parameter {index} has shape {list(blob.shape)}, wanted {list(param.shape)}")
    return [blob.data.reshape(param.shape) for blob, param in zip(blobs, params, strict=True)]


def _share(
    layer: Layer, arrays: list[np.ndarray], owners: dict[str, tuple[str, np.ndarray]], report: ImportReport, where: str
) -> list[np.ndarray]:
    """Parameters that carry a name (`param { name: ... }`) take the array of the first layer with that name."""
    result = list(arrays)
    for index, spec in enumerate(layer.proto.param[: len(arrays)]):
        if not spec.name:
            continue
        owner, array = owners.setdefault(spec.name, (f"{layer.name}/{index}", arrays[index]))
        if array.size != arrays[index].size:
            raise ModelError(
                f"{where}: parameter {index} shares '{spec.name}' with {owner} of shape {list(array.shape)}; "
                f"wanted {list(arrays[index].shape)}"
            )
        if owner != f"{layer.name}/{index}":
            report.shared[f"{layer.name}/{index}"] = owner
        result[index] = array.reshape(arrays[index].shape)
    return result
