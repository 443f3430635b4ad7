"""Blobs as pycaffe shows them: `data` and `diff` as NumPy arrays, and their shape in old and new words."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from ...errors import InputError, ShapeError
from .storage import Data, Diff, Host, Shape


class Shaped:
    """The shape of a blob, and the four names that Caffe had for axes."""

    @property
    def shape(self) -> Shape:
        raise NotImplementedError

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise ShapeError(f"a blob of shape {list(self.shape)} has more axes than num, channels, height, width")
        return self.shape[axis] if axis < len(self.shape) else 1

    num = property(lambda self: self._legacy(0))
    channels = property(lambda self: self._legacy(1))
    height = property(lambda self: self._legacy(2))
    width = property(lambda self: self._legacy(3))


class Blob(Shaped):
    """An activation blob. Split blobs share `data` with the blob that they split."""

    def __init__(self, name: str, shape: Sequence[int], data: Data | None = None) -> None:
        self.name = name
        self.values = data if data is not None else Data(shape)
        self._signal = Diff(shape)

    def signal(self) -> Diff:
        """The diff's storage, in the blob's present shape."""
        if self._signal.shape != self.values.shape:
            self._signal.reshape(self.values.shape)
        return self._signal

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def data(self) -> np.ndarray:
        """Activations, float32 [shape], writable: what is written is what the next forward from here on reads."""
        return self.values.array()

    @property
    def diff(self) -> np.ndarray:
        """The signal of the last backward pass, float32 [shape], writable: the next backward from here on reads it."""
        return self.signal().array()

    def reshape(self, *shape: int) -> None:
        """Another shape; the layers above follow at the next `forward` or `Net.reshape`."""
        if any(int(n) < 1 for n in shape):
            raise InputError(f"blob '{self.name}': reshape{tuple(shape)}; wanted lengths of at least 1")
        self.values.reshape([int(n) for n in shape])
        self._signal.reshape(self.values.shape)

    def __repr__(self) -> str:
        return f"<Blob {self.name} {list(self.shape)}>"


class ParamBlob(Shaped):
    """A parameter. The array is the parameter itself; whoever asks for it may write to it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = Host(tensor)
        self._looked_at = False
        self._diff: np.ndarray | None = None

    @property
    def tensor(self) -> torch.Tensor:
        return self._host.tensor

    @property
    def shape(self) -> Shape:
        return tuple(self.tensor.shape)

    @property
    def data(self) -> np.ndarray:
        """The parameter, float32 [shape], writable."""
        self._looked_at = True
        return self._host.array()

    @property
    def diff(self) -> np.ndarray:
        """Zeros [shape], writable: backward passes here carry signals to blobs and none to parameters."""
        if self._diff is None:
            self._diff = np.zeros(self.shape, np.float32)
        return self._diff

    def version(self) -> int:
        """A number that is another one whenever the array may have been written to.

        torch counts its own writes to a tensor, which is what the plan looks at; a write of nothing makes it count
        those that went through NumPy.
        """
        if self._looked_at:
            self.tensor.reshape(-1)[:0].zero_()
            self._looked_at = self._host.held
        return self.tensor._version

    def fill(self, array: np.ndarray) -> None:
        """New content of the same number of elements."""
        self.tensor.copy_(torch.from_numpy(np.array(array, np.float32)).reshape(self.shape))

    def __repr__(self) -> str:
        return f"<parameter {list(self.shape)}>"
