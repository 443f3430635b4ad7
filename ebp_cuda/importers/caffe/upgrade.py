"""Older ways of writing a network -> the current one: V0 and V1 `layers`, and inputs given as fields of the net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ModelError
from . import version0
from .schema import NetParameter, enum_name

_IRREGULAR = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BN": "BN", "BNLL": "BNLL", "ELU": "ELU", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "IM2COL": "Im2col", "LRN": "LRN", "MVN": "MVN", "PRELU": "PReLU", "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPP": "SPP", "TANH": "TanH",
}  # fmt: skip


def v1_type(name: str) -> str:
    """The current name of a V1 layer type: INNER_PRODUCT is InnerProduct."""
    return _IRREGULAR.get(name) or "".join(part.capitalize() for part in name.split("_"))


def upgrade(net: Any, origin: str, types: Mapping[int, str] | None = None) -> tuple[Any, list[int | None]]:
    """A new `NetParameter` with current layers only, its inputs as a layer "input" of type Input, as Caffe does; and
    for each of its layers, which entry of the file it was (None for the inputs).

    types: entry -> type name of V1 layers whose type has no number in the schema.
    Raises ModelError: both `layer` and `layers`, V0 and V1 mixed, an input without a shape; UnsupportedError.
    """
    if net.layer and net.layers:
        raise ModelError(f"{origin}: both `layer` and `layers` entries; Caffe takes one of the two formats")
    result = NetParameter()
    result.CopyFrom(net)
    del result.layer[:], result.layers[:], result.input[:], result.input_dim[:], result.input_shape[:]
    if net.input:
        _input_layer(net, result, origin)
    entries: list[int | None] = [None] * len(result.layer)
    if net.layer:
        result.layer.extend(net.layer)
        return result, [*entries, *range(len(net.layer))]
    oldest = [old.HasField("layer") for old in net.layers]
    if all(oldest):
        return result, [*entries, *version0.convert(list(net.layers), result.layer.add, origin)]
    if any(oldest):
        raise ModelError(f"{origin}: layers of format V0 and V1 in one file; wanted one format")
    for index, old in enumerate(net.layers):
        _v1_layer(old, result.layer.add(), (types or {}).get(index) or enum_name(old, "type"))
        entries.append(index)
    return result, entries


def _input_layer(net: Any, result: Any, origin: str) -> None:
    layer = result.layer.add(name="input", type="Input", top=list(net.input))
    count = len(net.input)
    if len(net.input_shape):
        # one shape may serve all inputs, as in an Input layer
        if len(net.input_shape) not in (1, count):
            raise ModelError(f"{origin}: {count} inputs but {len(net.input_shape)} input_shape entries")
        layer.input_param.shape.extend(net.input_shape)
    elif len(net.input_dim) == 4 * count:
        for i in range(count):
            layer.input_param.shape.add().dim.extend(net.input_dim[4 * i : 4 * i + 4])
    elif len(net.input_dim):
        raise ModelError(
            f"{origin}: {count} inputs but {len(net.input_dim)} input_dim entries; wanted 4 for each input"
        )


def _v1_layer(old: Any, new: Any, kind: str) -> None:
    new.name = old.name
    new.type = v1_type(kind)
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    new.loss_weight.extend(old.loss_weight)
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    new.blobs.extend(old.blobs)
    for index in range(max(len(old.param), len(old.blobs_lr))):
        spec = new.param.add()
        if index < len(old.param) and old.param[index]:
            spec.name = old.param[index]
        if index < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[index]
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
