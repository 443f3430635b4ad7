"""What a server takes at most: of a request's body, of a photo, and of requests at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server."""

    max_bytes: int = 20 << 20
    """Of an uploaded file."""
    max_pixels: int = 50_000_000
    """Of a photo, known before any pixel is decoded."""
    upload_seconds: float = 30.0
    """That an upload may take."""
    photos: int = 8
    """Photos that are kept with their forward pass; the one that was not used for longest goes first."""
    at_once: int = 2
    """Requests that compute at the same time."""
    waiting: int = 64
    """Requests that may wait for their turn."""
    classes: int = 20
    """Maps of one request."""
    batch: int = 8
    """Images of `POST /attribute` that are computed together."""
    batch_seconds: float = 0.005
    """How long the first image of a batch waits for others."""
    answer_seconds: float = 60.0
    """That a request of `POST /attribute` waits for its answer."""


class Refused(Exception):
    """A request that is answered with a sentence and an HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Turns:
    """Lets so many requests compute at once and so many wait; others are refused at once."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = threading.Semaphore(at_once)
        self._room = threading.Semaphore(at_once + waiting)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for a turn. Raises Refused (503) where too many wait already."""
        if not self._room.acquire(blocking=False):
            raise Refused(503, "The server is busy: too many requests wait. Try again in a moment.")
        try:
            with self._free:
                yield
        finally:
            self._room.release()
