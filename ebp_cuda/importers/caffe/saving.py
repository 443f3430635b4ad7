"""A finished ONNX model -> file, whole or absent, in little more memory than the model itself."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx

from ...errors import InputError
from ...files import atomic_path, check_writable
from . import wire

EXTERNAL_LIMIT = 1_900_000_000
"""Bytes of weights above which they go into a file beside the model: a protobuf message ends at 2 GB."""

# field numbers of onnx.proto
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def save(model: onnx.ModelProto, path: str | Path, external_limit: int = EXTERNAL_LIMIT) -> None:
    """Write `model` to `path`; with more than `external_limit` bytes of weights, those to PATH + ".data" beside it.

    Raises InputError where the file cannot be written; then nothing new lies under either name.
    """
    path = check_writable(path)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > external_limit:
        _save_external(model, path)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for chunk in _chunks(model):
            file.write(chunk)


def _chunks(model: onnx.ModelProto) -> Iterator[bytes]:
    """The bytes of the model. SerializeToString would hold all weights twice more while it works."""
    outer, inner = onnx.ModelProto(), onnx.GraphProto()
    for message, copy, left_out in ((model, outer, "graph"), (model.graph, inner, "initializer")):
        for field, value in message.ListFields():
            if field.name == left_out:
                continue
            if isinstance(value, str | bytes | int):
                setattr(copy, field.name, value)
            else:
                getattr(copy, field.name).extend(value)
    rest = inner.SerializeToString(deterministic=True)
    heads = [wire.bytes_header(_GRAPH_INITIALIZER, tensor.ByteSize()) for tensor in model.graph.initializer]
    size = len(rest) + sum(map(len, heads)) + sum(tensor.ByteSize() for tensor in model.graph.initializer)
    yield outer.SerializeToString(deterministic=True)
    yield wire.bytes_header(_MODEL_GRAPH, size)
    yield rest
    for head, tensor in zip(heads, model.graph.initializer, strict=True):
        small = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        yield head + small.SerializeToString(deterministic=True)
        yield wire.bytes_header(_TENSOR_RAW_DATA, len(tensor.raw_data))
        yield tensor.raw_data


def _save_external(model: onnx.ModelProto, path: Path) -> None:
    """Both files are written in a folder beside the target, because the model holds the name of its data file."""
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    data = f"{path.name}.data"
    try:
        folder.mkdir()
        onnx.save_model(model, folder / path.name, save_as_external_data=True, location=data)
        (folder / data).replace(path.with_name(data))
        (folder / path.name).replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
