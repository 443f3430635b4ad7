"""A finished ONNX model -> file, whole or absent, in little more memory than its weights take."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from ...errors import InputError
from ...files import atomic_path, check_writable
from . import wire

EXTERNAL_LIMIT = 1_900_000_000
"""Bytes of weights above which they go into a file beside the model: a protobuf message ends at 2 GB."""

_SMALL = 1024
"""Bytes of a tensor that stays in the model when weights go into a file of their own: shapes, axes."""

_ALIGNMENT = 4096
"""Tensors of the other file start at multiples of this, so that readers can map them."""

_PIECE = 1 << 24

# field numbers of onnx.proto
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def save(
    model: onnx.ModelProto,
    tensors: Mapping[str, np.ndarray],
    path: str | Path,
    external_limit: int = EXTERNAL_LIMIT,
) -> None:
    """Write `model` to `path`, with the numbers of its initializers from `tensors`.

    With more than `external_limit` bytes of them, those go to PATH + ".data" beside it.
    Raises InputError where the file cannot be written; then nothing new lies under either name.
    """
    path = check_writable(path)
    if sum(array.nbytes for array in tensors.values()) > external_limit:
        _save_external(model, tensors, path)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for chunk in _chunks(model, tensors):
            file.write(chunk)


def _chunks(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of the model: what SerializeToString gives, without holding the weights several times."""
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
    heads = []
    for tensor in model.graph.initializer:
        size = tensors[tensor.name].nbytes
        head = tensor.SerializeToString(deterministic=True) + wire.bytes_header(_TENSOR_RAW_DATA, size)
        heads.append(wire.bytes_header(_GRAPH_INITIALIZER, len(head) + size) + head)
    size = len(rest) + sum(map(len, heads)) + sum(tensors[tensor.name].nbytes for tensor in model.graph.initializer)
    yield outer.SerializeToString(deterministic=True)
    yield wire.bytes_header(_MODEL_GRAPH, size)
    yield rest
    for head, tensor in zip(heads, model.graph.initializer, strict=True):
        yield head
        yield from _pieces(tensors[tensor.name])


def _pieces(array: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes in C order, some megabytes at a time: it may be a transposed view of a mapped file."""
    rows = array.reshape(1) if array.ndim == 0 else array
    step = max(1, _PIECE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step]).data.cast("B")


def _save_external(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Both files are written in a folder beside the target, because the model holds the name of its data file."""
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    data = f"{path.name}.data"
    try:
        folder.mkdir()
        with (folder / data).open("wb") as file:
            for initializer in model.graph.initializer:
                array = tensors[initializer.name]
                if array.nbytes <= _SMALL:
                    initializer.raw_data = array.tobytes()
                    continue
                file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
                initializer.data_location = onnx.TensorProto.EXTERNAL
                place = {"location": data, "offset": file.tell(), "length": array.nbytes}
                for key, value in place.items():
                    initializer.external_data.add(key=key, value=str(value))
                for piece in _pieces(array):
                    file.write(piece)
        (folder / path.name).write_bytes(model.SerializeToString(deterministic=True))
        (folder / data).replace(path.with_name(data))
        (folder / path.name).replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
