"""One status per call: what may be wrong with its inputs, targets and results, in one small tensor of the pass itself.

    [highest target, -lowest target, -least mass left, largest mass left, result not finite, input 1 not finite, ...]

Every entry is larger the worse it is, so the status of a call in parts is the maximum over its parts. Nothing here
waits for a device: who reads the tensor decides when.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from ..errors import EBPError, InputError
from ..graph import Graph
from .capture import Arrival, arrival_of

Request = TypeVar("Request")

_KINDS = ("", "infinite values", "NaN")
"""What an input may hold, by its code."""


@dataclass(frozen=True)
class Status:
    """A status tensor, read."""

    highest: float
    lowest: float
    """Of the targets that lay on the device; 0 where none did."""
    least_mass: float
    """The least mass left that is not 0; 1 where there is none."""
    largest_mass: float
    finite: bool
    """Whether all relevance that was read out is finite."""
    inputs: tuple[str, ...]
    """By input: "", "NaN" or "infinite values"."""

    @classmethod
    def of(cls, status: torch.Tensor) -> Status:
        """Waits for the device that holds it."""
        highest, lowest, least, largest, bad, *inputs = status.tolist()
        return cls(highest, -lowest, -least, largest, bad == 0, tuple(_KINDS[int(code)] for code in inputs))

    def check_inputs(self, graph: Graph) -> None:
        """Raises InputError for the first input that is not finite."""
        for name, kind in zip(graph.inputs, self.inputs, strict=True):
            if kind:
                raise InputError(f"{graph.origin}: input '{name}' holds {kind}")


def status_of(
    inputs: Sequence[torch.Tensor], targets: torch.Tensor | None = None, masses: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """The status, float64 [5 + inputs], of what lies on one device.

    inputs: placed, [N, ...]. targets: int64 [N, K], None where they are no choice of the caller's. masses: the mass
    left of every column, by layer.
    """
    zero = inputs[0].new_zeros((), dtype=torch.float64)
    entries = [zero, zero] if targets is None else [targets.amax(), -targets.amin()]
    left = torch.cat([mass.flatten() for mass in masses]) if masses else zero.reshape(1)
    least = torch.where(left > 0, left, 1.0).amin()
    entries += [-least, left.amax(), ~left.isfinite().all(), *map(_code, inputs)]
    return torch.stack([entry.to(torch.float64) for entry in entries])


def _code(x: torch.Tensor) -> torch.Tensor:
    """The place in _KINDS: the smallest element and the largest are NaN if any is."""
    low, high = torch.aminmax(x)
    return 2 * low.isnan() + (low.isinf() | high.isinf())


KEPT = 8
"""Calls that wait for their status with their request at hand; of earlier ones only the status is kept."""

Judge = Callable[[Status, "Request | None"], None]
"""Raises the EBPError of a call, or warns; may run the request again."""


@dataclass
class _Waiting(Generic[Request]):
    number: int
    title: str
    arrival: Arrival
    request: Request | None
    judge: Judge[Request]


class CallLog(Generic[Request]):
    """The calls of one owner whose status the host does not have yet.

    A call on the CPU is judged when it is entered. One that a GPU still works on is judged when its status has arrived,
    at a later call or by `check`; the error then says which call it belongs to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[Request]] = deque()
        self._count = 0

    def __reduce__(self) -> tuple[type[CallLog[Request]], tuple[()]]:
        """A copy, of a network say, has calls of its own."""
        return type(self), ()

    def enter(self, status: torch.Tensor, title: str, request: Request, judge: Judge[Request]) -> None:
        """Enters a call. Nothing is asked of a status without numbers, nor of one that the caller's graph records."""
        arrival = arrival_of(status)
        with self._lock:
            self._count += 1
            if arrival is not None and not arrival.at_once:
                self._waiting.append(_Waiting(self._count, title, arrival, request, judge))
                if len(self._waiting) > KEPT:
                    self._waiting[-KEPT - 1].request = None
                return
        if arrival is not None:
            judge(Status.of(arrival.status()), request)

    def raise_arrived(self) -> None:
        """Judges the calls whose status has arrived, and waits for none."""
        while (call := self._next(arrived=True)) is not None:
            self._judge(call)

    def check(self) -> None:
        """Waits for every call that was entered and judges it. Raises the EBPError of the first bad one."""
        while (call := self._next(arrived=False)) is not None:
            self._judge(call)

    def _next(self, arrived: bool) -> _Waiting[Request] | None:
        with self._lock:
            if not self._waiting or (arrived and not self._waiting[0].arrival.arrived()):
                return None
            return self._waiting.popleft()

    def _judge(self, call: _Waiting[Request]) -> None:
        try:
            call.judge(Status.of(call.arrival.status()), call.request)
        except EBPError as error:
            raise type(error)(f"call {call.number} of {self._count} ({call.title}): {error}") from error
