"""Arrays of other libraries: in without a copy, and results back in the caller's kind.

NumPy and CuPy arrays, and whatever else speaks DLPack, share their memory with the tensor made of them. DLPack hands
over the stream as well: what CuPy has queued on its current stream is waited for, and the other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .errors import InputError

Array = Any
"""A torch tensor, a NumPy array, a CuPy array, or another array with DLPack."""


def to_tensor(array: Array) -> torch.Tensor:
    """The tensor that shares the array's memory (a copy where torch has no such memory layout, or none is shared).

    Raises what the conversion raises: TypeError, ValueError, RuntimeError, BufferError.
    """
    if isinstance(array, torch.Tensor):
        return array
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        return _from_numpy(np.asarray(array))
    return torch.from_dlpack(array)


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()  # torch has neither read-only memory nor steps backwards
    return torch.as_tensor(array)


def like(given: Array | Mapping[str, Array], tensor: torch.Tensor) -> Array:
    """`tensor` as the kind of array that `given` is: NumPy on the host, CuPy on a GPU, otherwise a tensor.

    given: the caller's array, or a dict of them by name, of which the first decides.
    """
    array: Any = next(iter(given.values()), None) if isinstance(given, Mapping) else given
    if isinstance(array, np.ndarray):
        return tensor.cpu().numpy()
    library: Any = sys.modules.get(_library(array))
    if isinstance(array, torch.Tensor) or not hasattr(array, "__dlpack__") or not hasattr(library, "from_dlpack"):
        return tensor
    if array.__dlpack_device__()[0] != _DLPACK_CPU and not tensor.is_cuda:
        return library.asarray(tensor.numpy())
    return library.from_dlpack(tensor)


def goes_to_the_host(given: Array | Mapping[str, Array], tensor: torch.Tensor) -> bool:
    """Whether `like` would wait for the device of `tensor`."""
    array: Any = next(iter(given.values()), None) if isinstance(given, Mapping) else given
    return isinstance(array, np.ndarray) and tensor.device.type not in ("cpu", "meta")


_DLPACK_CPU = 1


def one_kind(function: str, arrays: Sequence[Array]) -> None:
    """Raises InputError unless all arrays are of one library."""
    if len({_library(array) for array in arrays}) > 1:
        kinds = ", ".join(f"{_library(array)}.{type(array).__name__}" for array in arrays)
        raise InputError(f"{function}: got {kinds}; wanted arrays of one library")


def _library(array: Array) -> str:
    return "torch" if isinstance(array, torch.Tensor) else type(array).__module__.partition(".")[0]
