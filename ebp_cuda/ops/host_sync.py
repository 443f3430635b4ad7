"""Calls that make the host wait for the device: refused while a graph is recorded, and made once where they must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_SYNCHRONIZING = frozenset(
    (
        _aten._local_scalar_dense,
        _aten.is_nonzero,
        _aten.equal,
        _aten.nonzero,
        _aten.argwhere,
        _aten.masked_select,
        _aten.bincount,
        _aten._unique2,
        _aten.unique_dim,
        _aten.unique_consecutive,
    )
)


class HostRead(Exception):
    """A call that no graph can record: the host would wait for the device, or send it something."""

    def __init__(self, call: str, layer: str = "") -> None:
        self.call, self.layer = call, layer
        where = f"layer '{layer}': " if layer else ""
        super().__init__(f"{where}{call} between host and device cannot be recorded")


class ForbidHostSync(TorchDispatchMode):
    """Raises HostRead for every call within that makes the host wait for the device, or copies between the two.

    outside: tensors that the calls read and did not make (weights, tables), which a recording must keep alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outside: dict[int, torch.Tensor] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _synchronizes(func.overloadpacket, args, kwargs or {}):
            raise HostRead(str(func))
        read = {_place(tensor): tensor for tensor in _tensors((*args, *(kwargs or {}).values()))}
        self.outside.update({place: tensor for place, tensor in read.items() if place not in self._made})
        result = func(*args, **(kwargs or {}))
        self._made.update(place for place in map(_place, _tensors([result])) if place not in read)
        return result


def is_on_host(tensor: torch.Tensor) -> bool:
    """Whether the host can read the numbers without waiting for a device."""
    return tensor.is_cpu


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _place(tensor: torch.Tensor) -> int:
    """Which memory a tensor looks at."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _synchronizes(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if packet in _SYNCHRONIZING:
        return True
    if packet is _aten.lift_fresh:  # torch.tensor(...): a number or a list of the host's
        return True
    if packet is _aten._to_copy:
        return kwargs.get("device") not in (None, args[0].device)
    if packet is _aten.copy_:
        return bool(args[0].device != args[1].device)
    if packet is _aten.repeat_interleave:
        return kwargs.get("output_size") is None
    if packet in (_aten.index, _aten.index_put, _aten.index_put_):
        return any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1])
    return False


def minmax(tensor: torch.Tensor) -> tuple[float, float] | None:
    """The smallest and the largest element (NaN if there is one), by waiting for the device once.

    None where no value can be read: on meta tensors, and while the current stream records a graph.
    """
    if tensor.is_meta or (tensor.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    low, high = torch.stack(tensor.detach().aminmax()).tolist()
    return low, high


def synchronized(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, after waiting for the stream that computes it: a kept tensor may be read next on another stream."""
    if tensor.is_cuda and not torch.cuda.is_current_stream_capturing():
        torch.cuda.current_stream(tensor.device).synchronize()
    return tensor
