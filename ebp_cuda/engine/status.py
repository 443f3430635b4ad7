"""One status per call: what may be wrong with its inputs, targets and results, in one small tensor of the pass itself.

    [least mass left, largest mass left, lowest target, highest target, of every input its least and its
    largest, least mass of a seed]

A call in parts has one such row for each. Nothing here waits for a device: who reads the tensor decides when.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Status:
    """A status tensor, read."""

    least_mass: float
    """The least mass left that is not 0; 1 where there is none."""
    largest_mass: float
    lowest: float
    """Of the caller's targets; 0 where there are none."""
    highest: float
    inputs: tuple[str, ...]
    """By input: "", "NaN" or "infinite values"."""
    least_seed: float = 1.0
    """Least mass of a seed; 1 where none can be 0."""

    @property
    def finite(self) -> bool:
        """Whether all relevance that was read out is finite: its mass is a sum of absolute values."""
        return math.isfinite(self.largest_mass)

    @classmethod
    def of(cls, status: torch.Tensor) -> Status:
        """Waits for the device that holds it."""
        least, largest, lowest, highest, *ends, seeds = zip(*status.tolist(), strict=True)
        kinds = tuple(_kind((*low, *high)) for low, high in zip(ends[::2], ends[1::2], strict=True))
        largest_mass = math.nan if any(map(math.isnan, largest)) else max(largest)
        return cls(min(least), largest_mass, min(lowest), max(highest), kinds, min(seeds))

    def check_inputs(self, graph: Graph) -> None:
        """Raises InputError for the first input that is not finite."""
        for name, kind in zip(graph.inputs, self.inputs, strict=True):
            if kind:
                raise InputError(f"{graph.origin}: input '{name}' holds {kind}")


def _kind(ends: Sequence[float]) -> str:
    """What an input holds, by its least and largest elements: both are NaN where any element is."""
    if any(map(math.isnan, ends)):
        return "NaN"
    return "infinite values" if any(map(math.isinf, ends)) else ""


def status_of(
    inputs: Sequence[torch.Tensor],
    targets: torch.Tensor | None = None,
    masses: Sequence[torch.Tensor] = (),
    seeds: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """The status, [1, 5 + 2 * inputs] in the inputs' dtype, of what lies on one device.

    inputs: placed, [N, ...]. targets: int64 [N, K], None where they are no choice of the caller's. masses: the mass
    left of every column, by layer. seeds: the mass of seeds that may be 0.
    """
    none = inputs[0].new_zeros(())
    entries = [none, none, none, none]
    if masses:
        left = masses[0] if len(masses) == 1 else torch.cat([mass.flatten() for mass in masses])
        entries[:2] = torch.where(left > 0, left, 1.0).amin(), left.amax()
    if targets is not None:
        entries[2:] = (end.to(none) for end in torch.aminmax(targets))
    for x in inputs:
        entries += torch.aminmax(x)
    entries.append(torch.cat(list(seeds)).amin().to(none.dtype) if seeds else none + 1)
    return torch.stack(entries).unsqueeze(0)


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

    def enter(self, status: torch.Tensor, title: str, request: Request | None, judge: Judge[Request]) -> None:
        """Enters a call, with its request where it can be run again. Nothing is asked of a status without numbers, nor
        of one that the caller's graph records."""
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
