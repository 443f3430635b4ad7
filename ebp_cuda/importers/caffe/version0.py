"""Caffe's first format, V0 (2013): `layers { layer { name type settings } bottom top }` -> current layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ModelError, UnsupportedError, nearest_names

_TYPES = {
    "accuracy": "Accuracy", "bnll": "BNLL", "concat": "Concat", "conv": "Convolution", "data": "Data",
    "dropout": "Dropout", "euclidean_loss": "EuclideanLoss", "flatten": "Flatten", "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output", "im2col": "Im2col", "images": "ImageData", "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct", "lrn": "LRN", "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling", "relu": "ReLU", "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss",
    "split": "Split", "tanh": "TanH", "window_data": "WindowData",
}  # fmt: skip

# V0 field -> (settings message, its field), by layer type
_COMMON = {"weight_filler": "weight_filler", "bias_filler": "bias_filler", "num_output": "num_output"}
_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "conv": (
        "convolution_param",
        {**_COMMON, "biasterm": "bias_term", "pad": "pad", "kernelsize": "kernel_size", "group": "group",
         "stride": "stride"},
    ),
    "im2col": ("convolution_param", {"pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}),
    "innerproduct": ("inner_product_param", {**_COMMON, "biasterm": "bias_term"}),
    "pool": ("pooling_param", {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}),
    "lrn": ("lrn_param", {name: name for name in ("local_size", "alpha", "beta", "k")}),
    "dropout": ("dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "concat": ("concat_param", {"concat_dim": "concat_dim"}),
    "data": ("data_param", {"source": "source", "batchsize": "batch_size"}),
    "images": (
        "image_data_param",
        {"source": "source", "batchsize": "batch_size", "new_height": "new_height", "new_width": "new_width"},
    ),
}  # fmt: skip
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}


def convert(connections: list[Any], add: Callable[[], Any], origin: str) -> list[int]:
    """Adds a current layer, made by `add`, for every V0 entry; returns which entry each one came from.

    A padding layer is no layer any more: its pad goes to the convolutions and poolings that read it.
    Raises ModelError where another layer reads one, UnsupportedError for an unknown type.
    """
    pads: dict[str, tuple[str, int]] = {}
    made: list[int] = []
    for index, connection in enumerate(connections):
        old = connection.layer
        if old.type == "padding":
            if len(connection.bottom) != 1 or len(connection.top) != 1:
                raise ModelError(f"{origin}: padding layer '{old.name}' wants one bottom and one top")
            pads[connection.top[0]] = connection.bottom[0], old.pad
            continue
        if old.type not in _TYPES:
            raise UnsupportedError(
                f"{origin}: layer '{old.name}': V0 type '{old.type}'{nearest_names(old.type, _TYPES)}"
            )
        new = add()
        _fill(old, new)
        new.top.extend(connection.top)
        for bottom in connection.bottom:
            if bottom in pads and old.type not in ("conv", "pool"):
                raise ModelError(
                    f"{origin}: layer '{old.name}' ({new.type}) reads padding; wanted a conv or pool layer"
                )
            if bottom in pads:
                bottom, pad = pads[bottom]
                _set(getattr(new, _FIELDS[old.type][0]), "pad", pad)
            new.bottom.append(bottom)
        made.append(index)
    return made


def _fill(old: Any, new: Any) -> None:
    new.name, new.type = old.name, _TYPES[old.type]
    new.blobs.extend(old.blobs)
    for rate in old.blobs_lr:
        new.param.add(lr_mult=rate)
    settings, names = _FIELDS.get(old.type, ("", {}))
    for source, target in names.items():
        if old.HasField(source):
            _set(getattr(new, settings), target, getattr(old, source))
    if old.type in ("data", "images", "window_data"):
        for source, target in _TRANSFORM.items():
            if old.HasField(source):
                setattr(new.transform_param, target, getattr(old, source))


def _set(message: Any, name: str, value: Any) -> None:
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    elif isinstance(getattr(message, name), int | float | str | bool):
        setattr(message, name, value)
    else:
        getattr(message, name)[:] = [value]
