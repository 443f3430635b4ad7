"""Images decoded ahead in processes, in order, whatever the images do to the processes.

The run never waits for a process but in `poll`, with the nearest deadline: one that is stopped, or whose decoder never
returns, is replaced whatever it was doing, and the others do not notice.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Generator, Iterable
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from ..errors import UnsupportedError
from .decoding import Chunk, Decoded, Decoder
from .process import END, WITHOUT, Task, Worker

_STARTS = 3
"""Processes in a row that may end before they are there."""


class DecodeLoop:
    """Decodes chunks in order, in `workers` processes, or in a thread where that is 0.

    At most `2 * workers` chunks are under way. A process that ends, or takes more than `timeout` seconds for an image,
    is replaced; what it had not sent is decoded again. An image that costs two processes becomes a row with that error.
    A thread cannot be ended: one that takes too long is left behind, and the image becomes a row with that error.
    """

    def __init__(self, decoder: Decoder, workers: int, timeout: float) -> None:
        self._decoder, self._count, self._timeout = decoder, workers, timeout
        self._workers: list[Worker] = []
        self._failed_starts = 0

    def run(self, chunks: Iterable[Chunk]) -> Generator[tuple[Chunk, list[Decoded]], None, None]:
        """Each chunk with its images. Raises UnsupportedError where processes cannot be started."""
        return self._run_processes(chunks) if self._count else self._run_thread(chunks)

    def _run_thread(self, chunks: Iterable[Chunk]) -> Generator[tuple[Chunk, list[Decoded]], None, None]:
        thread = _DecodingThread(self._decoder)
        try:
            for chunk in chunks:
                images = []
                for row, item in enumerate(chunk.items, chunk.first):
                    decoded = thread.decode(row, item, self._timeout)
                    if decoded is None:
                        thread = _DecodingThread(self._decoder)
                        decoded = Decoded.failed(row, item, f"{item.name}: decoding it took too long")
                    images.append(decoded)
                yield chunk, images
        finally:
            thread.end()

    def _run_processes(self, chunks: Iterable[Chunk]) -> Generator[tuple[Chunk, list[Decoded]], None, None]:
        todo = iter(chunks)
        under_way: deque[Task] = deque()
        try:
            while True:
                under_way.extend(map(Task, islice(todo, 2 * self._count - len(under_way))))
                if not under_way:
                    return
                while under_way[0].missing:
                    self._hand_out([task for task in under_way if task.missing])
                    self._wait()
                task = under_way.popleft()
                yield task.chunk, task.images
        finally:
            while self._workers:
                self._workers.pop().end()

    def _hand_out(self, tasks: list[Task]) -> None:
        """Starts as many processes as are of use, and gives them the tasks that none has: two each, as they come."""
        while len(self._workers) < min(self._count, len(tasks)):
            self._workers.append(Worker(self._decoder, self._timeout))
        for task in tasks:
            able = [worker for worker in self._workers if worker.able]
            if not task.taken and able:
                min(able, key=lambda worker: len(worker.pending)).take(task)

    def _wait(self) -> None:
        """Waits until a process sends or takes something, ends, or has taken too long."""
        poll = select.poll()
        for worker in self._workers:
            poll.register(worker, select.POLLIN | (select.POLLOUT if worker.has_unsent else 0))
        left = min(worker.deadline for worker in self._workers) - time.monotonic()
        events = dict(poll.poll(None if left == math.inf else max(0.0, left * 1000)))
        for worker in list(self._workers):
            try:
                if worker.fileno() in events:
                    worker.exchange()
            except (EOFError, OSError):
                self._remove(worker, f"died ({worker.end(patience=END)})")
                continue
            if time.monotonic() > worker.deadline:
                worker.end()
                self._remove(worker, "took too long")

    def _remove(self, worker: Worker, reason: str) -> None:
        self._workers.remove(worker)
        self._failed_starts = 0 if worker.up else self._failed_starts + 1
        if self._failed_starts == _STARTS:
            raise UnsupportedError(
                f"{_STARTS} decoding processes {reason} at their start; in a script, the calls must stand under "
                f"`if __name__ == '__main__':`, because every process imports it; {WITHOUT}"
            )
        worker.fail_current(reason)


class _DecodingThread:
    """A thread that decodes one image after another, for a run without processes."""

    def __init__(self, decoder: Decoder) -> None:
        self._todo: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        self._done: SimpleQueue[Decoded] = SimpleQueue()
        # a daemon: where a decoder never returns, the interpreter must still end
        Thread(target=self._work, args=(decoder,), name="ebp-decode", daemon=True).start()

    def _work(self, decoder: Decoder) -> None:
        while (image := self._todo.get()) is not None:
            self._done.put(decoder.decode(*image))

    def decode(self, row: int, item: Any, timeout: float) -> Decoded | None:
        """The image, or None where it took more than `timeout` seconds; the thread is of no use then."""
        self._todo.put((row, item))
        try:
            return self._done.get(timeout=timeout)
        except Empty:
            self.end()
            return None

    def end(self) -> None:
        """Has the thread end, once its decoder returns."""
        self._todo.put(None)
