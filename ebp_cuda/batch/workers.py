"""Images decoded ahead in processes, in order, whatever the images do to the processes.

Each process has a pipe of its own and sends every image as it is done. So the end of one is seen at once, also in the
middle of an image that it was sending, and the others do not notice.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from PIL import Image

from ..errors import UnsupportedError
from .decoding import Chunk, Decoded, Decoder

_START = 120.0
"""Seconds that a process may take until it is there."""
_END = 5.0
"""Seconds that one which has let go of its pipe may take until it has ended."""
_STARTS = 3
"""Processes in a row that may end before they are there."""
_LARGE = 16 << 20
"""Bytes that a process takes and frees at first. From then on glibc keeps pieces of memory as large as that, where it
else gives them back and takes them again for every image, which costs a tenth of the time."""
_WITHOUT = "workers=0 (--workers 0) needs none"


class DecodeLoop:
    """Decodes chunks in order, in `workers` processes, or in the calling thread where that is 0.

    At most `2 * workers` chunks are under way. A process that ends, or takes more than `timeout` seconds for an image,
    is replaced; what it had not sent is decoded again. An image that costs two processes becomes a row with that error.
    """

    def __init__(self, decoder: Decoder, workers: int, timeout: float) -> None:
        self._decoder, self._workers, self._timeout = decoder, workers, timeout
        self._crew: list[_Worker] = []
        self._vain = 0

    def run(self, chunks: Iterable[Chunk]) -> Generator[tuple[Chunk, list[Decoded]], None, None]:
        """Each chunk with its images. Raises UnsupportedError where processes cannot be started."""
        if not self._workers:
            for chunk in chunks:
                yield chunk, [self._decoder.decode(row, item) for row, item in enumerate(chunk.items, chunk.first)]
            return
        todo = iter(chunks)
        under_way: deque[_Task] = deque()
        try:
            while True:
                under_way.extend(map(_Task, islice(todo, 2 * self._workers - len(under_way))))
                if not under_way:
                    return
                while under_way[0].missing:
                    self._hand_out([task for task in under_way if task.missing])
                    self._await()
                task = under_way.popleft()
                yield task.chunk, task.images
        finally:
            while self._crew:
                self._crew.pop().end()

    def _hand_out(self, tasks: list[_Task]) -> None:
        """Starts as many processes as are of use, and gives them the tasks that none has: two each, as they come."""
        while len(self._crew) < min(self._workers, len(tasks)):
            self._crew.append(_Worker(self._decoder, self._timeout))
        for task in tasks:
            able = [worker for worker in self._crew if worker.able]
            if not task.taken and able:
                min(able, key=lambda worker: len(worker.pending)).take(task)

    def _await(self) -> None:
        """Waits until a process sends something, ends, or has taken too long."""
        left = min(worker.deadline for worker in self._crew) - time.monotonic()
        ready = wait([worker.pipe for worker in self._crew], None if left == math.inf else max(0.0, left))
        for worker in list(self._crew):
            if worker.pipe in ready:
                if not worker.receive():
                    self._bury(worker, f"died ({worker.end()})")
            elif time.monotonic() > worker.deadline:
                worker.end()
                self._bury(worker, "took too long")

    def _bury(self, worker: _Worker, how: str) -> None:
        self._crew.remove(worker)
        self._vain = 0 if worker.up else self._vain + 1
        if self._vain == _STARTS:
            raise UnsupportedError(
                f"{_STARTS} decoding processes {how} at their start; in a script, the calls must stand under "
                f"`if __name__ == '__main__':`, because every process imports it; {_WITHOUT}"
            )
        worker.blame(how)


@dataclass(eq=False)
class _Task:
    """A chunk under way."""

    chunk: Chunk
    taken: bool = False
    """Whether a process has it."""
    found: dict[int, Decoded] = field(default_factory=dict)
    """By row."""
    deadly: set[int] = field(default_factory=set)
    """The rows that have cost a process."""

    @property
    def missing(self) -> list[int]:
        """The rows to decode."""
        first = self.chunk.first
        return [row for row in range(first, first + len(self.chunk.items)) if row not in self.found]

    @property
    def images(self) -> list[Decoded]:
        return [self.found[row] for row in sorted(self.found)]

    def strike(self, row: int, how: str) -> None:
        """Told that a process `how` ("died") at an image."""
        item = self.chunk.items[row - self.chunk.first]
        if row in self.deadly:
            self.found[row] = Decoded(row, item.name, item.target, error=f"{item.name}: the process decoding it {how}")
        self.deadly.add(row)


class _Worker:
    """A process and what it has to do."""

    def __init__(self, decoder: Decoder, timeout: float) -> None:
        context = _processes()
        self.pipe, theirs = context.Pipe()
        self._at = context.RawValue("q", 0)
        self._process = context.Process(target=_decode_all, args=(theirs, decoder, self._at), daemon=True)
        try:
            with _deaf():
                self._process.start()
        except (OSError, EOFError) as error:
            raise UnsupportedError(f"a decoding process cannot be started: {error!r}; {_WITHOUT}") from error
        theirs.close()
        self.up, self._received = False, 0
        self.pending: deque[tuple[_Task, int]] = deque()
        """The rows that it was sent and has not sent back."""
        self._timeout, self.deadline = timeout, time.monotonic() + _START

    @property
    def able(self) -> bool:
        """Whether it can take another task: it may have one and be at one."""
        return self.up and (not self.pending or self.pending[0][0] is self.pending[-1][0])

    def take(self, task: _Task) -> None:
        """Sends it what is missing of a chunk."""
        if not self.pending:
            self.deadline = time.monotonic() + self._timeout
        task.taken = True
        self.pending.extend((task, row) for row in task.missing)
        with contextlib.suppress(OSError):  # it has ended: `receive` finds out
            for row in task.missing:
                self.pipe.send((row, task.chunk.items[row - task.chunk.first]))

    def receive(self) -> bool:
        """Takes what it sent; False where it has ended."""
        try:
            decoded = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(_END)
            return False
        if self.up:
            task, row = self.pending.popleft()
            task.found[row] = decoded
            self._received += 1
        self.up = True
        self.deadline = time.monotonic() + self._timeout if self.pending else math.inf
        return True

    def blame(self, how: str) -> None:
        """Gives its tasks back, and says which image it was at when it ended, if any."""
        for task, _ in self.pending:
            task.taken = False
        culprit = ""
        if self._at.value:
            task, row = self.pending[self._at.value - self._received - 1]
            task.strike(row, how)
            culprit = f" at {task.chunk.items[row - task.chunk.first].name}"
        with contextlib.suppress(RuntimeWarning):  # where warnings are errors
            warnings.warn(f"a decoding process is replaced: it {how}{culprit}", RuntimeWarning, stacklevel=2)

    def end(self) -> str:
        """Ends the process, unless it has ended, and says how it did."""
        self.pipe.close()
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _decode_all(pipe: Connection, decoder: Decoder, at: Any) -> None:
    """What a process does: decodes what it is sent, one image after another, and sends each back; first a None.

    at: the number of the image that is decoded just now, from 1 on, or 0.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a fork server that ran before this one asked for it
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    torch.set_num_threads(1)
    bytearray(_LARGE)
    todo: SimpleQueue[bytes] = SimpleQueue()
    done: SimpleQueue[Decoded | None] = SimpleQueue()
    done.put(None)
    for work, queue in ((_read, todo), (_write, done)):
        Thread(target=work, args=(pipe, queue), daemon=True).start()
    for number in count(1):
        image = todo.get()
        at.value = number
        row, item = pickle.loads(image)
        decoded = decoder.decode(row, item)
        at.value = 0
        done.put(decoded)


def _read(pipe: Connection, todo: SimpleQueue[bytes]) -> None:
    # also while an image is decoded: a run that is killed must not leave a process behind that hangs
    with contextlib.suppress(EOFError, OSError):
        while True:
            todo.put(pipe.recv_bytes())
    os._exit(1)


def _write(pipe: Connection, done: SimpleQueue[Decoded | None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            pipe.send(done.get())


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes begun in the block do not hear Ctrl-C, which reaches the whole group: the run ends them itself."""
    resource_tracker.ensure_running()  # a part of multiprocessing that would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _processes() -> Any:
    """Processes forked from a server that has imported what they need: no fork of a process with threads or CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
