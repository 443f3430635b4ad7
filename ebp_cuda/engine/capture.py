"""Recorded runs: GPU work taken down once as a CUDA graph and replayed on other inputs, one launch for all of it.

A run is recorded for one setting (shapes, number of classes, ...). It reads tensors of its own, into which every replay
copies what the caller gives, and its results are copies, so nothing of it is seen outside. Whatever is needed in
between lies in one memory pool per GPU that all recordings share: none needs it between two replays, so the pool is as
large as the largest recording, not as their sum. That is why replays on one GPU wait for one another, whatever their
streams. This file knows nothing of networks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch

from ..errors import EBPError, InputError, UnsupportedError
from ..ops.host_sync import ForbidHostSync, HostRead

Tensors = tuple[torch.Tensor, ...]
Replay = Callable[[], Any]

LIMIT = 8
"""Settings that one owner remembers, unless it says otherwise; the least recently used goes first."""
WORTH = 4
"""Replays by which a recording has paid for itself."""


class Recorder(Protocol):
    """What can take down work and do it again: a GPU, or a test's stand-in for one."""

    def idle(self) -> bool:
        """Whether recorded runs may be used now: not while the caller's stream records a graph of its own."""

    def turn(self) -> AbstractContextManager[object]:
        """Held while a run is recorded or replayed: work under it follows all that went before under it."""

    def room(self, like: torch.Tensor) -> torch.Tensor:
        """Memory as large as `like`'s, for what is touched in a turn only."""

    def record(self, work: Callable[[], Tensors]) -> tuple[Tensors, Replay]:
        """Takes down work() and returns its results' tensors and what fills them again."""


class CudaRecorder:
    """The recorder of one GPU: its pool, its capturing stream, and the order of what uses the pool."""

    _one_capture = threading.Lock()  # torch allows one at a time in a process

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._turn = threading.RLock()
        with torch.cuda.device(device):
            # The allocator hands memory of a pool only to the stream it was made for: one for all captures. Eager
            # runs use another, so that the workspace that cuBLAS keeps for this one comes from the pool too.
            self._stream, self._done = torch.cuda.Stream(), torch.cuda.Event()
            self._pool = torch.cuda.graph_pool_handle()

    def idle(self) -> bool:
        with torch.cuda.device(self.device):
            return not torch.cuda.is_current_stream_capturing()

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._turn, torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)
            try:
                yield
            finally:
                self._done.record(stream)

    def room(self, like: torch.Tensor) -> torch.Tensor:
        with torch.cuda.stream(self._stream):  # whose freed memory no other stream gets, while a replay still reads it
            return torch.empty_like(like)

    def record(self, work: Callable[[], Tensors]) -> tuple[Tensors, Replay]:
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        with self._one_capture, capture:
            results = work()
        return results, graph.replay


@lru_cache(None)
def _cuda_recorder(device: torch.device) -> CudaRecorder:
    return CudaRecorder(device)


def recorder_of(device: torch.device) -> Recorder | None:
    """The one recorder of a device; None where there is none (a CPU)."""
    return _cuda_recorder(device) if device.type == "cuda" else None


class Arrival(Protocol):
    """A small tensor on its way to the host."""

    at_once: bool
    """Whether the host had it from the start."""

    def arrived(self) -> bool:
        """Whether `status` will not wait."""

    def status(self) -> torch.Tensor:
        """The tensor on the host; waits for it."""


class _Here:
    at_once = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def arrived(self) -> bool:
        return True

    def status(self) -> torch.Tensor:
        return self._tensor


class _FromGpu:
    """A copy that the caller's stream makes when it gets there."""

    at_once = False

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.device(tensor.device):
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def arrived(self) -> bool:
        return self._copied.query()

    def status(self) -> torch.Tensor:
        self._copied.synchronize()
        return self._host


def arrival_of(tensor: torch.Tensor) -> Arrival | None:
    """Sends a tensor to the host without waiting; None where it holds no numbers (meta tensors), or will hold them only
    when a graph is replayed that the caller is recording."""
    if tensor.is_cuda:
        return None if torch.cuda.is_current_stream_capturing() else _FromGpu(tensor)
    return None if tensor.is_meta else _Here(tensor)


class Run:
    """One recorded run."""

    def __init__(self, recorder: Recorder, given: Sequence[torch.Tensor], work: Callable[..., Tensors]) -> None:
        """Records work(*copies of given). Raises HostRead, and RuntimeError where torch cannot record it."""
        self._recorder, self.replays = recorder, 0
        with recorder.turn():
            with torch.inference_mode(False):  # tensors made under it could not be written to outside of it
                self._given = tuple(recorder.room(tensor).copy_(tensor) for tensor in given)
            with ForbidHostSync():
                work(*self._given)  # makes what is made at a first run, and finds what a recording would break at
            with ForbidHostSync() as read:
                self.results, self._replay = recorder.record(lambda: work(*self._given))
            self._keep = tuple(read.outside.values())  # a replay reads their memory, whoever else has let go of it

    def __call__(self, given: Sequence[torch.Tensor]) -> Tensors:
        """The results for other inputs of the same shapes, on the caller's current stream."""
        with self._recorder.turn():
            self.replays += 1
            for own, new in zip(self._given, given, strict=True):
                own.copy_(new)
            self._replay()
            return tuple(result.clone() for result in self.results)


@dataclass
class _Entry:
    """A setting that was met: what it rested on then, and its run."""

    state: object
    seen: int = 1
    run: Run | None = None
    why_not: str = ""


class Recordings:
    """The recorded runs of one owner by setting, at most `limit` of them; the least recently used goes first.

    A setting is recorded when it comes the second time in the same state, or the first time where `always`: what is
    done only once would be done three times. Another state (written weights, say) makes it a new one. Where settings
    come and go so quickly that a recording goes before it has paid for itself, the next ones must come more often.
    """

    def __init__(self, recorder: Recorder, *, always: bool = False, limit: int = LIMIT) -> None:
        self._recorder, self._always, self._limit = recorder, always, limit
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._often = 1 if always else 2
        self.why_not = ""
        """Why the setting met last is not recorded; "" where it is, or may yet be."""

    def __len__(self) -> int:
        return sum(entry.run is not None for entry in self._entries.values())

    def find(self, key: Hashable, state: object) -> Run | None:
        """The run recorded for this setting in this state, if there is one and it may be used now."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            if entry.state != state:
                entry.run = None  # what it reads is no longer what it should
                return None
            self.why_not = entry.why_not
            run = entry.run
        return run if run is not None and self._recorder.idle() else None

    def learn(self, key: Hashable, state: object, given: Callable[[], Tensors], work: Callable[..., Tensors]) -> None:
        """Told after an eager run of a setting that `find` did not find; records it if it is worth it.

        Raises UnsupportedError where `always` and it cannot be recorded.
        """
        if not self._recorder.idle():
            return
        with self._lock:
            met = self._entries.get(key)
            if met is not None and met.state == state:
                met.seen += 1
            else:
                met = self._entries[key] = _Entry(state)
                self._entries.move_to_end(key)
                self._forget()
        if met.run is None and not met.why_not and met.seen >= self._often:
            self._record(met, given(), work)
        self.why_not = met.why_not
        if self._always and met.why_not:
            raise UnsupportedError(f"graphs=True: {met.why_not}")

    def _forget(self) -> None:
        while len(self._entries) > self._limit:
            _, oldest = self._entries.popitem(last=False)
            if oldest.run is not None and oldest.run.replays < WORTH and not self._always:
                self._often *= 2

    def _record(self, entry: _Entry, given: Tensors, work: Callable[..., Tensors]) -> None:
        try:
            run = Run(self._recorder, given, work)
        except HostRead as read:
            entry.why_not = str(read)
        except (RuntimeError, EBPError) as error:  # a full memory, or a call that torch refuses to record
            entry.why_not = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            with self._lock:
                entry.run = run

    def clear(self) -> None:
        """Forgets all, and gives up their memory."""
        with self._lock:
            self._entries.clear()


def recordings_for(graphs: bool | str, device: torch.device) -> tuple[Recordings | None, str]:
    """Where the runs of one owner are recorded, or why nowhere.

    Raises InputError for another `graphs` than "auto", True or False, UnsupportedError for True where there are none.
    """
    if graphs not in (True, False, "auto"):
        raise InputError(f"graphs={graphs!r}: wanted 'auto', True or False")
    recorder = recorder_of(device) if graphs else None
    if recorder is not None:
        return Recordings(recorder, always=graphs is True), ""
    if graphs is True:
        raise UnsupportedError(f"graphs=True: device='{device}' has no CUDA graphs")
    return None, f"device='{device}' has no CUDA graphs" if graphs else "graphs=False"
