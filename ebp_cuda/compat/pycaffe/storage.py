"""The two sides of a blob's array: the engine's tensor and the NumPy array that scripts read and write.

A script may write through an array at any time, and NumPy tells nobody. So as long as a handed-out array (or a view
of it) is alive, its content is what counts: the engine looks at it before each use, and writes its results into it.
Once nobody holds the array, nothing is copied before somebody asks again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch

from ...rules.relevance import Relevance

Shape = tuple[int, ...]


class Host:
    """A float32 array [shape] in C order that knows whether somebody outside still holds it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self._array: weakref.ref[np.ndarray] | None = None

    def array(self) -> np.ndarray:
        array = self._array() if self._array is not None else None
        if array is None:
            array = self.tensor.numpy()
            self._array = weakref.ref(array)
        return array

    @property
    def held(self) -> bool:
        return self._array is not None and self._array() is not None


class Storage:
    """One array of a blob: what `content()` gives the engine, `array()` gives a script."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape: Shape = tuple(shape)
        self._host: Host | None = None
        self._looked_at = False

    def array(self) -> np.ndarray:
        """The array as float32, writable, C order."""
        if self._host is None:
            self._host = Host(self._copy())
        self._looked_at = True
        return self._host.array()

    def reshape(self, shape: Sequence[int]) -> None:
        """Another shape; the content stays where it has as many elements, and is 0 otherwise."""
        if tuple(shape) == self.shape:
            return
        old = self._copy() if prod(shape) == prod(self.shape) else torch.zeros(prod(shape))
        self.shape, self._host = tuple(shape), Host(old.reshape(tuple(shape)))
        self._looked_at = True

    def _copy(self) -> torch.Tensor:
        raise NotImplementedError

    def _edited(self) -> torch.Tensor | None:
        """The script's side, if the script may have written to it since this was last asked."""
        if not self._looked_at or self._host is None:
            return None
        self._looked_at = self._host.held
        return self._host.tensor

    def _follow(self, shape: Sequence[int], value: Callable[[], torch.Tensor]) -> None:
        """The engine wrote: a held array gets the new content, another one is forgotten."""
        shape = tuple(shape)
        if self._host is not None and self._host.held and shape == self.shape:
            self._host.tensor.copy_(value())
            self._looked_at = True
        else:
            self._host, self._looked_at = None, False
        self.shape = shape


class Data(Storage):
    """Activations of a blob. `computed` tells whether layers alone made them, so that the signs that layers
    guarantee hold."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self._tensor: torch.Tensor | None = None
        self.computed = False

    def tensor(self, device: torch.device, *, anew: bool = False) -> torch.Tensor:
        """For the engine; the same object for as long as the content is the same.

        anew: do not compare with what a script may have written, but take it.
        """
        edited = self._edited()
        if edited is not None and (anew or not self._holds(edited)):
            self._tensor, self.computed = _placed(edited), False
        if self._tensor is None:
            self._tensor = _placed(torch.zeros(self.shape))
        if self._tensor.device != device:
            self._tensor = self._tensor.to(device)
        return self._tensor

    def _holds(self, host: torch.Tensor) -> bool:
        return self._tensor is not None and self._tensor.shape == host.shape and torch.equal(self._tensor.cpu(), host)

    def put(self, tensor: torch.Tensor, computed: bool = True) -> None:
        self._tensor, self.computed = tensor, computed
        self._follow(tensor.shape, lambda: tensor)

    def _copy(self) -> torch.Tensor:
        if self._tensor is None or tuple(self._tensor.shape) != self.shape:
            return torch.zeros(self.shape)
        return _contiguous_copy(self._tensor)


class Lazy:
    """A relevance that is worked out once, when it is first wanted."""

    def __init__(self, make: Callable[[], Relevance | None]) -> None:
        self._make: Callable[[], Relevance | None] | None = make
        self._made: Relevance | None = None

    def get(self) -> Relevance | None:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made


Content = Relevance | Lazy | None
"""None stands for zeros."""


def known(content: Content) -> Relevance | None:
    """The content, worked out."""
    return content.get() if isinstance(content, Lazy) else content


class Diff(Storage):
    """What a backward pass left at a blob; often nobody reads it, and then it is not worked out."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self._content: Content = None

    def taken(self, device: torch.device) -> Content:
        """What the engine may carry on, as it is now, perhaps not worked out yet."""
        edited = self._edited()
        if edited is not None:
            self._content = Relevance(_placed(edited).to(device))
        return self._content

    def relevance(self, device: torch.device) -> Relevance | None:
        """The same, worked out."""
        self._content = rel = known(self.taken(device))
        if rel is not None and rel.s.device != device:
            rel = self._content = Relevance(rel.p().to(device))
        return rel

    def put(self, content: Content, shape: Sequence[int]) -> None:
        self._content = content
        self._follow(shape, self._copy_of_known)

    def _copy_of_known(self) -> torch.Tensor:
        self._content = rel = known(self._content)
        return torch.zeros(self.shape) if rel is None else rel.p()

    def _copy(self) -> torch.Tensor:
        return _contiguous_copy(self._copy_of_known()).reshape(self.shape)


def _placed(tensor: torch.Tensor) -> torch.Tensor:
    """A copy as the engine lays tensors out."""
    last = tensor.dim() == 4
    return tensor.clone(memory_format=torch.channels_last if last else torch.contiguous_format)


def _contiguous_copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
