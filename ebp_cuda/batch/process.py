"""One decoding process: what the run holds of it, and what it does.

Each process has a socket of its own and sends every image as it is done. So the end of one is seen at once, also in the
middle of an image that it was sending.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import socket
import time
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import resource_tracker
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from PIL import Image

from ..errors import UnsupportedError
from . import channel
from .decoding import Chunk, Decoded, Decoder

_START = 120.0
"""Seconds that a process may take until it is there."""
END = 5.0
"""Seconds that one which was killed, or has let go of its socket, may take until it has ended."""
_LARGE = 16 << 20
"""Bytes that a process takes and frees at first. From then on glibc keeps pieces of memory as large as that, where it
else gives them back and takes them again for every image, which costs a tenth of the time."""
WITHOUT = "workers=0 (--workers 0) needs none"


@dataclass(eq=False)
class Task:
    """A chunk under way."""

    chunk: Chunk
    taken: bool = False
    """Whether a process has it."""
    decoded: dict[int, Decoded] = field(default_factory=dict)
    """By row."""
    killed_by: set[int] = field(default_factory=set)
    """The rows that have cost a process."""

    @property
    def missing(self) -> list[int]:
        """The rows to decode."""
        first = self.chunk.first
        return [row for row in range(first, first + len(self.chunk.items)) if row not in self.decoded]

    @property
    def images(self) -> list[Decoded]:
        """The decoded images in order."""
        return [self.decoded[row] for row in sorted(self.decoded)]

    def record_crash(self, row: int, reason: str) -> None:
        """Notes that a process ended at an image, by "died" or "took too long"; the second time it is given up."""
        item = self.chunk.items[row - self.chunk.first]
        if row in self.killed_by:
            self.decoded[row] = Decoded.failed(row, item, f"{item.name}: the process decoding it {reason}")
        self.killed_by.add(row)


class Worker:
    """A decoding process and what it has to do."""

    def __init__(self, decoder: Decoder, timeout: float) -> None:
        context = _processes()
        self._channel, theirs = channel.pair()
        self._current = context.RawValue("q", 0)
        self._process = context.Process(target=_decode_all, args=(theirs, decoder, self._current), daemon=True)
        try:
            with _ignoring_interrupts():
                self._process.start()
        except (OSError, EOFError) as error:
            raise UnsupportedError(f"a decoding process cannot be started: {error!r}; {WITHOUT}") from error
        theirs.close()
        self.up, self._received = False, 0
        self.pending: deque[tuple[Task, int]] = deque()
        """The rows that it was sent and has not sent back."""
        self._timeout, self.deadline = timeout, time.monotonic() + _START

    def fileno(self) -> int:
        """Of its socket, for `poll`."""
        return self._channel.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether there is something to send that it has not taken."""
        return self._channel.has_unsent

    @property
    def able(self) -> bool:
        """Whether it can take another task: it may have one and be at one."""
        return self.up and (not self.pending or self.pending[0][0] is self.pending[-1][0])

    def take(self, task: Task) -> None:
        """Sends it what is missing of a chunk."""
        if not self.pending:
            self.deadline = time.monotonic() + self._timeout
        task.taken = True
        for row in task.missing:
            self.pending.append((task, row))
            self._channel.send(pickle.dumps((row, task.chunk.items[row - task.chunk.first])))
        with contextlib.suppress(OSError):  # it has ended: `exchange` finds out
            self._channel.flush()

    def exchange(self) -> None:
        """Sends and takes what goes without waiting. Raises EOFError or OSError where the process has ended."""
        progress = self._channel.flush()
        received, message = self._channel.receive()
        if message is not None:
            self._take_in(pickle.loads(message))
        if progress or received:
            self.deadline = time.monotonic() + self._timeout if self.pending or not self.up else math.inf

    def _take_in(self, decoded: Decoded | None) -> None:
        """An image that is done; None first, when the process is there."""
        if decoded is not None:
            task, row = self.pending.popleft()
            task.decoded[row] = decoded
            self._received += 1
        self.up = True

    def fail_current(self, reason: str) -> None:
        """Gives the tasks of an ended process back, and notes the image that it was at, if any."""
        for task, _ in self.pending:
            task.taken = False
        culprit = ""
        if self._current.value:
            task, row = self.pending[self._current.value - self._received - 1]
            task.record_crash(row, reason)
            culprit = f" at {task.chunk.items[row - task.chunk.first].name}"
        with contextlib.suppress(RuntimeWarning):  # where warnings are errors
            warnings.warn(f"a decoding process is replaced: it {reason}{culprit}", RuntimeWarning, stacklevel=2)

    def end(self, patience: float = 0.0) -> str:
        """Ends the process, unless it ends by itself in `patience` seconds, and says how it did."""
        self._channel.close()
        self._process.join(patience)
        self._process.kill()
        self._process.join(END)
        code = self._process.exitcode
        if code is None:
            return "does not end"  # in the kernel, or in a group that is frozen; nobody waits for it
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _decode_all(theirs: socket.socket, decoder: Decoder, current: Any) -> None:
    """What a process does: decodes what it is sent, one image after another, and sends each back; first a None.

    current: the number of the image that is decoded just now, from 1 on, or 0; shared with the run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a fork server that ran before this one asked for it
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    torch.set_num_threads(1)
    bytearray(_LARGE)
    todo: SimpleQueue[bytes] = SimpleQueue()
    done: SimpleQueue[Decoded | None] = SimpleQueue()
    done.put(None)
    for work, queue in ((_receive_all, todo), (_send_all, done)):
        Thread(target=work, args=(theirs, queue), daemon=True).start()
    for number in count(1):
        image = todo.get()
        current.value = number
        row, item = pickle.loads(image)
        decoded = decoder.decode(row, item)
        current.value = 0
        done.put(decoded)


def _receive_all(theirs: socket.socket, todo: SimpleQueue[bytes]) -> None:
    # also while an image is decoded: a run that is killed must not leave a process behind that hangs
    with contextlib.suppress(EOFError, OSError):
        while True:
            todo.put(channel.receive_message(theirs))
    os._exit(1)


def _send_all(theirs: socket.socket, done: SimpleQueue[Decoded | None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            channel.send_message(theirs, pickle.dumps(done.get(), protocol=pickle.HIGHEST_PROTOCOL))


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes begun in the block do not hear Ctrl-C, which reaches the whole group: the run ends them itself."""
    resource_tracker.ensure_running()  # a part of multiprocessing that would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _processes() -> Any:
    """Processes forked from a server that is spawned, has imported what they need, and has computed nothing.

    Nothing is ever forked from the run itself: torch's threads and CUDA do not survive that, and it would hang.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
