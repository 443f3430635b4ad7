"""Weights that a network shares with a torch module, which are the module's to write: changes are seen at every call.

What is seen, and by what:
* always: what torch counts (in-place operations, optimizers, load_state_dict), another tensor or other memory in the
  place of a weight (`set_`, `.data = `, a move to another device), and steps of fused optimizers, which torch does not
  count: by the counters, the addresses, and a hook that torch.optim calls after every step;
* writes that change a whole tensor without a count (`.data.mul_()`, NumPy views, inference tensors): by about 16
  elements of every weight, compared bit by bit. On a GPU the comparison runs there and no call waits for it: a call
  that read old weights is named by an error of a later one, or of `check`;
* a submodule in the place of another, or a weight that is one no more (`prune`, a parametrization): by an error, since
  the network is no longer that of the module;
* single elements written without a count: by `refresh`, or at every call with `check_weights="all"`, which reads all
  weights and compares a checksum.
"""

from __future__ import annotations

import threading
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..errors import InputError, ModelError
from ..graph import Graph, Node
from ..ops.host_sync import is_on_host
from .capture import Arrival, arrival_of

CHECKS = ("sampled", "all")
"""How closely a call looks at the weights."""


def checked_weights(check: str) -> str:
    """`check` itself; raises InputError where it is none of CHECKS."""
    if check not in CHECKS:
        raise InputError(f"check_weights={check!r}: wanted one of {', '.join(CHECKS)}")
    return check


SAMPLES = 16
"""Elements of every weight that each call compares: a write to the whole tensor that leaves these as they were leaves
a random one as it was with about the same odds, to the 16th power."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by size in bytes: NaN compares unequal to itself, its bits do not."""

Place: TypeAlias = tuple[Mapping[str, Any], str]
"""Where a module holds a tensor: its `_parameters` or `_buffers`, and the name in it."""


class SharedWeights:
    """Watches tensors that belong to a module.

    Args:
        places: where the module holds them, by their paths. The tables are kept, and not the module.
        take_over: called with the present tensors, in the order of `places`, when some of them changed.
        rebuilt: asked at every call: what of the module is no longer what was imported, "" where all is.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        take_over: Callable[[Sequence[torch.Tensor]], None],
        rebuilt: Callable[[], str] = str,
    ) -> None:
        self._paths, self._places = tuple(places), tuple(places.values())
        self._take_over, self._rebuilt = take_over, rebuilt
        self.followers: list[weakref.WeakMethod[Callable[[], None]]] = []
        """What is to be done as well when weights were taken over."""
        self._lock = threading.RLock()
        self._stepped = False
        self._checksums: list[int] | None = None
        """Of all weights, since somebody asked for them after the last refresh."""
        self._compared: list[Arrival] = []
        """Comparisons of earlier calls that a GPU may still work on."""
        self._remember()
        _WATCHED.add(self)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """A copy of a network, or one in another process, has weights of its own: nothing is left to watch."""
        return _nothing, ()

    def update(self, check: str = "sampled") -> bool:
        """Takes over what changed since the last call; whether anything did. See the top of this file for `check`.

        Raises:
            ModelError: where the module was rebuilt, so that the network is no longer its; where weights on a GPU turn
                out to have been written to before an earlier call, which the host did not wait to learn. They are taken
                over then, and the calls have to be made again.
        """
        self._check_structure()
        late = self._arrived_late(waits=False)
        changed = late or self._changed(check)
        if changed:
            with self._lock:
                if late or self._changed(check):  # no other thread was quicker
                    self.refresh()
                    if check == "all":
                        self._checksums = self._present_checksums()
        if late:
            raise ModelError(_LATE)
        self._compared += self._samples.on_device.compare()
        return changed

    def check(self) -> None:
        """Waits for the comparisons of all calls so far. Raises ModelError as `update` does."""
        if self._arrived_late(waits=True):
            self.refresh()
            raise ModelError(_LATE)

    def _check_structure(self) -> None:
        path = self._rebuilt()
        if not path:
            path = next(
                (p for p, (table, name) in zip(self._paths, self._places, strict=True) if table.get(name) is None), ""
            )
        if path:
            raise ModelError(
                f"'{path}' of the torch module was replaced or taken out after the import; import the module again"
            )

    def _arrived_late(self, waits: bool) -> bool:
        arrived = [arrival for arrival in self._compared if waits or arrival.arrived()]
        self._compared = [arrival for arrival in self._compared if arrival not in arrived]
        return any(bool(arrival.status()) for arrival in arrived)

    def refresh(self) -> None:
        """Takes over the present weights, whether or not a change was seen. Raises ModelError as `update` does."""
        self._check_structure()
        with self._lock, torch.inference_mode(False), torch.no_grad():
            self._take_over(self._present())
            self._remember()
            for follower in self.followers:
                if (follow := follower()) is not None:
                    follow()

    def note_step(self, stepped: set[int]) -> None:
        """Notes that a fused optimizer wrote to parameters of these ids."""
        self._stepped = self._stepped or any(id(tensor) in stepped for tensor in self._tensors)

    def _present(self) -> list[torch.Tensor]:
        return [table[name] for table, name in self._places]

    def _pairs(self) -> list[tuple[Place, torch.Tensor]]:
        return list(zip(self._places, self._tensors, strict=True))

    def _remember(self) -> None:
        self._tensors: tuple[torch.Tensor, ...] = tuple(table[name] for table, name in self._places)
        self._stepped = False
        self._stamps = [_stamp(tensor) for tensor in self._tensors]
        self._samples = _Samples(self._tensors)
        self._checksums = None

    def _changed(self, check: str) -> bool:
        if self._stepped or any(table.get(name) is not tensor for (table, name), tensor in self._pairs()):
            return True
        if [_stamp(tensor) for tensor in self._tensors] != self._stamps or self._samples.changed():
            return True
        # without checksums since the last refresh, nobody knows whether single elements changed: as if they had
        return check == "all" and (self._checksums is None or self._present_checksums() != self._checksums)

    def _present_checksums(self) -> list[int]:
        return [_checksum(tensor) for tensor in self._tensors]


_LATE = (
    "weights on a GPU were written to by .data, which torch does not count, before an earlier call: it read the old "
    "ones. They are taken over now; make the calls since that write again, or call net.refresh() after such a write"
)


def _nothing() -> None:
    return None


def _stamp(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's memory lies, and how often torch wrote to it; inference tensors count no writes."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class _Samples:
    """A few elements of each of many tensors, and what they held."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        views = [_sampled(tensor.detach()) for tensor in tensors if tensor.numel() and tensor.is_floating_point()]
        self._on_host: list[np.ndarray[Any, Any]] = [view.numpy() for view in views if is_on_host(view)]
        self._held = self._read()
        self.on_device = _DeviceSamples([view for view in views if not (is_on_host(view) or view.is_meta)])

    def _read(self) -> bytes:
        return b"".join(np.concatenate(group).tobytes() for group in _by_dtype(self._on_host))

    def changed(self) -> bool:
        """Whether an element on the host is another one than before."""
        return self._read() != self._held


def _by_dtype(arrays: Sequence[np.ndarray[Any, Any]]) -> list[list[np.ndarray[Any, Any]]]:
    """Groups of one dtype each, which join without a conversion."""
    kinds = dict.fromkeys(array.dtype for array in arrays)
    return [[array for array in arrays if array.dtype == kind] for kind in kinds]


class _DeviceSamples:
    """Samples on GPUs, compared there. The host waits for none of it: what one call compares, a later one reads."""

    def __init__(self, views: Sequence[torch.Tensor]) -> None:
        kinds = dict.fromkeys((view.device, view.dtype) for view in views)
        groups = [[view for view in views if (view.device, view.dtype) == kind] for kind in kinds]
        self._groups = [(group, torch.cat(group)) for group in groups]

    def compare(self) -> list[Arrival]:
        """Comparisons on their way: 1 where an element changed."""
        started = [arrival_of((torch.cat(group) != held).any()) for group, held in self._groups]
        return [arrival for arrival in started if arrival is not None]


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill a piece of memory without gaps, in whatever order."""
    count = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != count:
            return False
        count *= size
    return True


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All elements in a row, in the order in which they lie in memory: a view where they lie without gaps."""
    if _is_dense(tensor):
        return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    return tensor.reshape(-1)


def _sampled(tensor: torch.Tensor) -> torch.Tensor:
    """A view of some elements at equal distances, as integers, with the smallest element among them.

    The smallest is below zero in most weights: so at least one element changes where a write scales, negates, clamps
    or clears a tensor that has few elements other than zero. Where none is below zero, it is the largest.
    """
    flat = _flat(tensor)
    place = int(flat.argmin())
    place = place if flat[place] < 0 else int(flat.argmax())
    if not _is_dense(tensor):  # the row is a copy: one element of the tensor itself
        position = np.unravel_index(place, tuple(tensor.shape))
        return tensor[tuple(int(n) for n in position)].reshape(1).view(_BITS[tensor.itemsize])
    step = max(tensor.numel() // SAMPLES, 1)
    return flat.view(_BITS[tensor.itemsize])[place % step :: step]


def _checksum(tensor: torch.Tensor) -> int:
    """CRC-32 of all bytes: another one wherever a single element of up to 32 bits changed."""
    return zlib.crc32(_flat(tensor.detach()).view(torch.uint8).cpu().numpy().data)


_WATCHED: weakref.WeakSet[SharedWeights] = weakref.WeakSet()


def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Fused steps write to parameters without counting it."""
    stepped = {id(param) for group in optimizer.param_groups if group.get("fused") for param in group["params"]}
    if stepped:
        for weights in list(_WATCHED):
            weights.note_step(stepped)


register_optimizer_step_post_hook(_after_step)


def point_to(own: torch.Tensor, present: torch.Tensor) -> None:
    """Makes `own` show the memory of `present`, in its shape, dtype and device, and counts that as a write to `own`.

    `own` must be a tensor of its own and no view (see `own_view`).
    """
    if (own.device, own.dtype) != (present.device, present.dtype):
        own.data = present.detach()
    own.set_(present.untyped_storage(), present.storage_offset(), present.shape, present.stride())


def own_view(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the memory of `tensor` that counts its own writes, and that `point_to` can take elsewhere."""
    own = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    own.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
    return own


def copy_params(graph: Graph, other: Graph) -> None:
    """Lets the parameters of a graph show those of another one of the same structure.

    Raises:
        ModelError: where an attribute differs, so that the graph is no longer the module's.
    """
    for node, present in zip(graph.nodes, other.nodes, strict=True):
        if (node.op, dict(node.attrs)) != (present.op, dict(present.attrs)) or not _alike(node, present):
            raise ModelError(
                f"{graph.origin}: a setting of layer '{node.name}' follows from weights that have changed; import the "
                "module again"
            )
        for name, param in node.params.items():
            if param is not present.params[name]:
                point_to(param, present.params[name])


def _alike(a: Node, b: Node) -> bool:
    shapes = [{name: param.shape for name, param in node.params.items()} for node in (a, b)]
    return shapes[0] == shapes[1]
