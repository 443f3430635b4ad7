"""Work beside the main thread, a bounded stretch ahead of it or behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(values: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The same values, made in a thread that stays at most `depth` of them ahead. Closing it closes `values`."""
    end = object()
    pool = ThreadPoolExecutor(1, "ebp-prefetch")
    waiting: deque[Future[Any]] = deque(pool.submit(next, values, end) for _ in range(depth))
    try:
        while (value := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, values, end))
            yield value
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        values.close()


class BackgroundCalls:
    """Calls made one after another in a thread; `submit` waits while `depth` of them are undone.

    What a call raises comes out of a later `submit`, or of the end of the block; the calls queued behind it are not
    made. However the block ends, it waits for the calls before.
    """

    def __init__(self, depth: int) -> None:
        self._pool = ThreadPoolExecutor(1, "ebp-background")
        self._waiting: deque[Future[None]] = deque()
        self._depth = depth
        self._failed = False

    def submit(self, call: Callable[..., object], *arguments: object) -> None:
        """Queues a call."""
        while self._waiting and (len(self._waiting) >= self._depth or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._make, call, arguments))

    def wait(self) -> None:
        """Until all calls are made."""
        while self._waiting:
            self._waiting.popleft().result()

    def _make(self, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> BackgroundCalls:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self.wait()
