"""Weights that an ONNX model keeps in files beside it: only files of the model's own folder, and only what is there."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx

from ...errors import ModelError
from .account import Account


class ExternalFiles:
    """The files beside one model.

    Tensors may share bytes of a file. What is read of it beyond its size is made up, and goes to the account.
    """

    def __init__(self, folder: Path | None, origin: str, account: Account) -> None:
        self.folder, self.origin, self.account = folder, origin, account
        self._read: dict[Path, int] = {}

    def array(self, tensor: onnx.TensorProto) -> np.ndarray:
        """The array of a tensor whose data lies in a file of the folder.

        Raises:
            ModelError: where the file is not in the folder, links out of it, is missing or too short, and where the
                tensor's shape or type is none.
        """
        where = f"{self.origin}: initializer '{tensor.name}'"
        info = {item.key: item.value for item in tensor.external_data}
        path = self._inside(info.get("location", ""), where)
        try:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            start, count = int(info.get("offset", 0)), prod(tensor.dims)
            size = int(info.get("length", count * kind.itemsize))
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{where}: its place in {path.name} is not readable: {error}") from None
        whole = path.stat().st_size
        if min([start, *tensor.dims], default=0) < 0 or size != count * kind.itemsize or start + size > whole:
            raise ModelError(
                f"{where}: shape {list(tensor.dims)} wants {count * kind.itemsize} bytes; {path.name} has "
                f"{whole}, of which it names {size} from {start} on"
            )
        before = self._read.get(path, 0)
        self._read[path] = before + size
        self.account.charge(min(max(before + size - whole, 0), size), 1, where)
        try:
            return np.fromfile(path, kind, count, offset=start).reshape(tuple(tensor.dims))
        except (ValueError, OSError) as error:  # a dim of 0 beside one that no array can have
            raise ModelError(f"{where}: shape {list(tensor.dims)} of {kind}: {error}") from None

    def _inside(self, location: str, where: str) -> Path:
        if self.folder is None:
            raise ModelError(f"{where}: its data lies in a file '{location}', and the model was not read from one")
        base = self.folder.resolve()
        try:
            path = (base / location).resolve()
            is_own = bool(location) and path.is_relative_to(base) and path.is_file()
        except (ValueError, OSError, RuntimeError):
            is_own = False
        if not is_own:
            raise ModelError(f"{where}: its data lies in '{location}', which is no file in {self.folder}")
        return path
