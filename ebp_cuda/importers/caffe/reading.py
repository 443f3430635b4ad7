"""Prototxt and caffemodel files -> messages and arrays. Every unreadable file is a ModelError that names it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from ...errors import ModelError, nearest_names
from ...files import atomic_path, kind_of_content
from . import hdf5, wire
from .blobs import WeightBlob, Weights
from .schema import NetParameter
from .text import Scan, scan

_TEXT = (
    "text; if it is a text caffemodel, google.protobuf.text_format reads it into caffe_pb2.NetParameter, whose "
    "SerializeToString() is a binary one"
)

_MAX_DIM = (1 << 31) - 1

MAX_TEXT = 8_000_000
"""Bytes of a prototxt."""

_HEAD = 1024
"""Bytes by which a weights file is told from what else people have under its name."""

MAX_LAYERS = 10_000
"""Layers that a prototxt may have: the longest of any use has a few thousand."""


def read_prototxt(path: str | Path) -> Any:
    """The `NetParameter` of a prototxt file, as written (nothing upgraded, no layer left out).

    Fields that the schema does not know are left out; `scanned_prototxt` tells which.
    Raises ModelError: no such file, no prototxt (with the line), no layers.
    """
    return scanned_prototxt(path)[0]


def scanned_prototxt(path: str | Path) -> tuple[Any, Scan]:
    """`read_prototxt`, and what in the file its message leaves out."""
    path = Path(path)
    with _open(path) as file:
        raw = file.read(MAX_TEXT + 1)
    kind = kind_of_content(raw)
    if kind and kind != "text":
        raise ModelError(f"{path}: {kind}; wanted a text prototxt")
    if len(raw) > MAX_TEXT and b"\0" not in raw:
        raise ModelError(f"{path}: more than {MAX_TEXT} bytes of text; wanted a prototxt")
    if b"\0" in raw:
        raise ModelError(f"{path}: binary data; wanted a text prototxt (are prototxt and caffemodel swapped?)")
    return parse_scanned(raw.decode("utf-8-sig", errors="replace"), str(path))


def parse_prototxt(text: str, origin: str = "prototxt") -> Any:
    """The `NetParameter` of prototxt text; `origin` stands for the file in messages."""
    return parse_scanned(text, origin)[0]


def parse_scanned(text: str, origin: str = "prototxt") -> tuple[Any, Scan]:
    """`parse_prototxt`, and what in the text its message leaves out."""
    found = scan(text, NetParameter.DESCRIPTOR, MAX_LAYERS)
    if len(found.lines) > MAX_LAYERS:
        raise ModelError(f"{origin}: more than {MAX_LAYERS} layers; wanted no more")
    try:
        net = text_format.Parse(found.text, NetParameter())
    except (text_format.ParseError, UnicodeError, RecursionError) as error:
        raise ModelError(f"{origin}:{error}: not a Caffe network description") from None
    if not net.layer and not net.layers:
        raise ModelError(f"{origin}: no layers; wanted a network description with `layer {{ ... }}` entries")
    if net.layer and net.layers:
        raise ModelError(f"{origin}: both `layer` and `layers` entries; Caffe takes one of the two formats")
    if len(found.lines) != len(net.layer) + len(net.layers):
        raise ModelError(f"{origin}: a list of layers in brackets; wanted an entry for each")
    for unknown in found.unknown:
        if unknown.entry is not None:
            entry = net.layer[unknown.entry] if net.layer else net.layers[unknown.entry]
            unknown.layer = entry.name
    return net, found


def read_weights(path: str | Path, *, may_be_empty: bool = False) -> Weights:
    """The parameters in a caffemodel (binary, current or V1) or in Caffe's HDF5 file (told apart by the content).

    Arrays of a binary file are read-only views of the mapped file: nothing is copied. may_be_empty: a file without
    layers is {}, for networks without parameters.
    Raises ModelError: missing, truncated or no weights file at all; UnsupportedError: HDF5 without h5py installed.
    """
    path = Path(path)
    with _open(path) as file:
        head = file.read(_HEAD)
        if head.startswith(hdf5.MAGIC):
            return hdf5.read_hdf5(path)
        if not head:
            if may_be_empty:
                return {}
            raise ModelError(f"{path}: empty file; wanted a caffemodel")
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    kind = kind_of_content(head)
    if kind == "text":
        kind = _TEXT
    try:
        weights = _binary_weights(view, path)
    except wire.WireError as error:
        reason = f"but {kind}" if kind else f"or a truncated one: {error}"
        raise ModelError(f"{path}: no caffemodel, {reason}") from None
    if not weights and (kind or not may_be_empty):
        raise ModelError(f"{path}: {f'no caffemodel, but {kind}' if kind else 'holds no layers; wanted a caffemodel'}")
    return weights


def write_caffemodel(path: str | Path, prototxt_text: str, weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a binary caffemodel: the layers of `prototxt_text` (current format), each with its `weights`.

    weights: layer name -> parameter arrays in Caffe's order (weight, bias), stored as float32.
    The file appears under its name only when complete. Raises ModelError (bad text, weights of an unknown layer).
    """
    net = parse_prototxt(prototxt_text)
    layers = {layer.name: layer for layer in net.layer}
    for name, arrays in weights.items():
        if name not in layers:
            raise ModelError(f"weights of '{name}', but the prototxt has no such layer{nearest_names(name, layers)}")
        del layers[name].blobs[:]
        for array in arrays:
            array = np.asarray(array, dtype="<f4")
            blob = layers[name].blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.MergeFromString(wire.bytes_field(5, array.tobytes()))  # as `data`, without an object per number
    with atomic_path(path) as temporary:
        temporary.write_bytes(net.SerializeToString(deterministic=True))


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


# --- binary ---------------------------------------------------------------------------------------------------------


def _binary_weights(view: memoryview, path: Path) -> Weights:
    weights: Weights = {}
    for number, kind, start, end in wire.fields(view, 0, len(view)):
        if number not in (100, 2) or kind != wire.BYTES:
            continue
        # (number of the name, number of the blobs) in LayerParameter and in V1LayerParameter
        name, blobs = _layer_fields(view, start, end, (1, 7) if number == 100 else (4, 6), number == 2)
        parsed = [
            _blob(view, first, last, f"{path}: layer '{name}', blob {i}") for i, (first, last) in enumerate(blobs)
        ]
        # the same layer may stand twice, once per phase: the one with the weights counts
        if parsed or name not in weights:
            weights[name] = parsed
    return weights


def _layer_fields(
    view: memoryview, start: int, end: int, numbers: tuple[int, int], older: bool
) -> tuple[str, list[tuple[int, int]]]:
    """Name and blobs of a layer whose fields have the `numbers`; `older`: field 1 may hold a layer of format V0."""
    name, blobs = "", []
    for number, kind, first, last in wire.fields(view, start, end):
        if kind != wire.BYTES:
            continue
        if number == numbers[0]:
            name = bytes(view[first:last]).decode("utf-8", errors="replace")
        elif number == numbers[1]:
            blobs.append((first, last))
        elif number == 1 and older:
            name, blobs = _layer_fields(view, first, last, (1, 50), False)
    return name, blobs


def _blob(view: memoryview, start: int, end: int, where: str) -> WeightBlob:
    header = [0, 0, 0, 0]
    shape: tuple[int, ...] | None = None
    parts: list[np.ndarray] = []
    for number, kind, first, last in wire.fields(view, start, end):
        if number in (1, 2, 3, 4) and kind == wire.VARINT:
            header[number - 1] = first
        elif number == 7 and kind == wire.BYTES:
            shape = _dims(view, first, last)
        elif (number == 5 and kind in (wire.BYTES, wire.FIXED32)) or (
            number == 8 and kind in (wire.BYTES, wire.FIXED64)
        ):
            width = 4 if number == 5 else 8
            if (last - first) % width:
                raise wire.WireError(f"{last - first} bytes of {width}-byte numbers at byte {first}")
            parts.append(np.frombuffer(view[first:last], dtype=f"<f{width}"))
    data = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, "<f4")])
    legacy = shape is None
    if shape is None:
        shape = tuple(header)
    if data.size != prod(shape) or max(shape, default=0) > _MAX_DIM:
        raise ModelError(f"{where}: shape {list(shape)} wants {prod(shape)} numbers, the file holds {data.size}")
    return WeightBlob(np.asarray(data, np.float32).reshape(shape), shape, legacy)


def _dims(view: memoryview, start: int, end: int) -> tuple[int, ...]:
    dims: list[int] = []
    for number, kind, first, last in wire.fields(view, start, end):
        if number == 1 and kind == wire.VARINT:
            dims.append(first)
        elif number == 1 and kind == wire.BYTES:
            while first < last:
                value, first = wire.varint(view, first, last)
                dims.append(value)
    return tuple(dims)
