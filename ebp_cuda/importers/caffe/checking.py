"""Whether a network can be imported; if not, everything that stands in the way at once, with file, line and layer."""

from __future__ import annotations

from ...errors import ModelError, UnsupportedError, nearest_names
from .layer import Layer
from .layers import LAYER_TYPES
from .net import CaffeNet

MOST = 200
"""Lines that one refusal has."""

_REASONS = {
    "Filter": "which images of the batch pass depends on their values",
    "LSTM": "recurrent layers are not imported",
    "LSTMUnit": "recurrent layers are not imported",
    "RNN": "recurrent layers are not imported",
    "Recurrent": "recurrent layers are not imported",
    "ROIPooling": "its regions come from outside the network",
    "ROIAlign": "its regions come from outside the network",
    "PSROIPooling": "its regions come from outside the network",
    "Proposal": "it selects regions, and how many depends on their values",
    "DetectionOutput": "it selects boxes, and how many depends on their values",
    "PriorBox": "it computes boxes from shapes alone",
}


def check(net: CaffeNet, ignore_unknown: bool, stored_statistics: bool = False) -> None:
    """Whether every layer that is needed has a translation.

    Raises UnsupportedError that lists every layer that has a type without one or, unless `ignore_unknown`, fields that
    the schema does not know or, unless `stored_statistics`, normalizes by the statistics of the batch; ModelError where
    a layer has too many ends.
    """
    problems = {}
    for layer in net.kept():
        found = [] if layer.type in LAYER_TYPES else [_no_translation(layer)]
        if layer.type in LAYER_TYPES and not ignore_unknown:
            found += [(item.line, str(item)) for item in layer.unknown]
        if takes_batch_statistics(layer, net.phase) and not stored_statistics:
            found.append((layer.line, batch_statistics(layer, net.phase)))
        if found:
            problems[layer.index] = found
    if problems:
        raise UnsupportedError(_listed(net, problems))
    for layer in net.kept():
        _check_ends(net, layer)
    if not net.kept():
        raise ModelError(f"{net.origin}: no layer is left in phase {net.phase}")


def takes_batch_statistics(layer: Layer, phase: str) -> bool:
    """Whether Caffe normalizes by mean and variance of the batch there, instead of the stored ones."""
    if layer.type == "BatchNorm":
        param = layer.proto.batch_norm_param
        return not param.use_global_stats if param.HasField("use_global_stats") else phase == "TRAIN"
    bn = layer.proto.bn_param
    return layer.type == "BN" and phase == "TRAIN" and not bn.frozen and not bn.HasField("bn_mode")


def batch_statistics(layer: Layer, phase: str) -> str:
    """Why `takes_batch_statistics` is a refusal, and the way on."""
    said = layer.type == "BatchNorm" and layer.proto.batch_norm_param.HasField("use_global_stats")
    why = "use_global_stats: false" if said else f"phase {phase}"
    return (
        f"{why} takes the statistics of the batch, in which images are not independent: stored_statistics=True "
        "(--stored-statistics) takes the stored ones instead, which are other values"
    )


def _check_ends(net: CaffeNet, layer: Layer) -> None:
    kind = LAYER_TYPES[layer.type]
    for what, names, (least, most) in (("bottom", layer.bottoms, kind.bottoms), ("top", layer.tops, kind.tops)):
        if len(names) < least:
            raise ModelError(f"{net.where(layer)}: {len(names)} {what}s; wanted at least {least}")
        if len(names) > most:
            raise ModelError(f"{net.where(layer)}: {len(names)} {what}s; wanted at most {most}")


def _no_translation(layer: Layer) -> tuple[int, str]:
    if layer.type == "Python":
        python = layer.proto.python_param
        return layer.line, f"it runs Python code, {python.module}.{python.layer}, which is not in the file"
    why = _REASONS.get(layer.type)
    text = f": {why}" if why else nearest_names(layer.type, LAYER_TYPES)
    return layer.line, f"no translation for this type{text}"


def _listed(net: CaffeNet, problems: dict[int, list[tuple[int, str]]]) -> str:
    lines = [
        f"{net.where_line(line)}: layer '{layer.name}' ({layer.type}): {text}"
        for layer in net.layers
        for line, text in problems.get(layer.index, ())
    ]
    tail = f";\nand {len(lines) - MOST} more" if len(lines) > MOST else ""
    if any(layer.unknown and layer.index in problems and layer.type in LAYER_TYPES for layer in net.layers):
        tail += "; ignore_unknown (--ignore-unknown) imports as if the unknown fields were not there"
    free = _independent(net, set(problems))
    if free:
        tail += f"; outputs (--outputs) imports what does not depend on these layers: {', '.join(free)}"
    return ";\n".join(lines[:MOST]) + tail


def _independent(net: CaffeNet, blocked: set[int], most: int = 5) -> list[str]:
    """The last blobs that do not depend on the blocked layers."""
    tainted: set[str] = set()
    ends: dict[str, None] = {}
    for layer in net.kept():
        if layer.index in blocked or not tainted.isdisjoint(layer.inputs):
            tainted.update(layer.outputs)
            continue
        for value in layer.inputs:
            ends.pop(value, None)
        ends.update(dict.fromkeys(layer.outputs))
    blobs = {values[-1]: blob for blob, values in net.versions.items()}
    return [blobs[value] for value in reversed(ends) if value in blobs][:most]
