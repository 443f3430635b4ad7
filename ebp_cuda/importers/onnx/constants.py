"""The constants of a model: initializers, Constant nodes, and what is computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ...errors import ModelError, UnsupportedError
from .account import Account
from .external import ExternalFiles


class Constants(Mapping[str, np.ndarray]):
    """Arrays by name. All can be written to, so that tensors may share their memory.

    Args:
        model: whose initializers are read.
        origin: the file, for messages.
        folder: where external data may lie; None where the model was never a file.
        arrays: the numbers of initializers by name, where the model does not hold them itself.
    """

    def __init__(
        self, model: onnx.ModelProto, origin: str, folder: Path | None, arrays: Mapping[str, np.ndarray]
    ) -> None:
        self.origin = origin
        self.account = Account()
        self._external = ExternalFiles(folder, origin, self.account)
        self._arrays: dict[str, np.ndarray] = {}
        self._owners: set[int] = set()
        for tensor in model.graph.initializer:
            if tensor.name in self:
                raise ModelError(f"{origin}: two initializers are named '{tensor.name}'")
            if min(tensor.dims, default=0) < 0:
                raise ModelError(f"{origin}: initializer '{tensor.name}' has shape {list(tensor.dims)}")
            self[tensor.name] = arrays[tensor.name] if tensor.name in arrays else self.read(tensor)
        for sparse in model.graph.sparse_initializer:
            raise UnsupportedError(f"{origin}: initializer '{sparse.values.name}' is sparse; wanted dense ones")
        self.account.limit += sum(array.nbytes for array in self.values()) // 4

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        array = array if array.flags.writeable else array.copy()
        self._arrays[name] = array
        self._owners.add(id(_owner(array)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def copied(self) -> Constants:
        """The same constants with an account of their own, for another attempt at the same model."""
        twin = object.__new__(Constants)
        twin.__dict__.update(self.__dict__)
        twin._arrays, twin._owners = dict(self._arrays), set(self._owners)
        twin.account = Account()
        twin.account.limit, twin.account.made = self.account.limit, self.account.made
        return twin

    def read(self, tensor: onnx.TensorProto) -> np.ndarray:
        """The numbers of a tensor in the file or beside it. Raises ModelError where they are not as it says."""
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._external.array(tensor)
        try:
            return numpy_helper.to_array(tensor)
        except Exception as error:  # the onnx package raises whatever numpy and protobuf do
            raise ModelError(f"{self.origin}: initializer '{tensor.name}': {error}") from None

    def tensor(self, array: np.ndarray, where: str) -> torch.Tensor:
        """`array` as a tensor; where it is no constant's memory, it is entered in the account."""
        array = np.asarray(array)  # arithmetic makes a plain number of an array without axes
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            self.account.charge(array.size, array.itemsize, where)
            array = array.copy()
        elif id(_owner(array)) not in self._owners:
            self.account.charge(array.size, array.itemsize, where)
        return torch.from_numpy(array)


def _owner(array: np.ndarray) -> object:
    """What holds the memory of an array that may be a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
