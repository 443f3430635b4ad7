"""Weights that an ONNX model keeps in files beside it: only files of the model's own folder, and only what is there."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx

from ...errors import ModelError


def external_array(tensor: onnx.TensorProto, folder: Path | None, origin: str) -> np.ndarray:
    """The array of a tensor whose data lies in another file of `folder` (None: the model was never a file).

    Raises ModelError where the file is not in the folder, links out of it, is missing or too short.
    """
    where = f"{origin}: initializer '{tensor.name}'"
    info = {item.key: item.value for item in tensor.external_data}
    path = _inside(info.get("location", ""), folder, where)
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        start, count = int(info.get("offset", 0)), prod(tensor.dims)
        size = int(info.get("length", count * kind.itemsize))
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{where}: its place in {path.name} is not readable: {error}") from None
    if min([start, *tensor.dims], default=0) < 0 or size != count * kind.itemsize or start + size > path.stat().st_size:
        raise ModelError(
            f"{where}: shape {list(tensor.dims)} wants {count * kind.itemsize} bytes; {path.name} has "
            f"{path.stat().st_size}, of which it names {size} from {start} on"
        )
    with path.open("rb") as file:
        file.seek(start)
        return np.frombuffer(file.read(size), kind).reshape(tuple(tensor.dims))


def _inside(location: str, folder: Path | None, where: str) -> Path:
    if folder is None:
        raise ModelError(f"{where}: its data lies in a file '{location}', and the model was not read from one")
    base = folder.resolve()
    try:
        path = (base / location).resolve()
        found = bool(location) and path.is_relative_to(base) and path.is_file()
    except (ValueError, OSError, RuntimeError):
        found = False
    if not found:
        raise ModelError(f"{where}: its data lies in '{location}', which is no file in {folder}")
    return path
