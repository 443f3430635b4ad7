"""Reading and preprocessing images in worker processes, in order, whatever the images do to the workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import EBPError, ShapeError
from ..job import read_input
from ..preprocess import Preprocess, prepare
from .places import Item


@dataclass(frozen=True)
class Decoded:
    """One image made ready, or why it could not be."""

    row: int
    """Its number in the shard."""
    name: str
    target: str | None = None
    x: npt.NDArray[np.float32] | None = None
    """[C, H, W]"""
    picture: npt.NDArray[np.float32] | None = None
    """For an overlay: [H, W, 3] in 0..1."""
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """Images of one shard that travel together: a few rows from `first` on."""

    shard: int
    first: int
    items: tuple[Item, ...]
    last: bool
    """Whether the shard ends with them."""


@dataclass(frozen=True)
class Decoder:
    """Decodes one image after another; what a worker process holds."""

    how: Preprocess
    pictures: bool = False

    def decode(self, row: int, item: Item) -> Decoded:
        """Never raises: an image that cannot be read becomes its error message."""
        decoded = Decoded(row, item.name, item.target)
        try:
            content = item.place.read()
            if isinstance(content, np.ndarray):
                seen = prepare(content, Preprocess())[0].numpy().transpose(1, 2, 0) if self.pictures else None
                return replace(decoded, x=prepare(content, self.how)[0].numpy(), picture=seen)
            x, pictures = read_input(item.name, self.how, data=content, pictures=self.pictures)
            if len(x) != 1:
                raise ShapeError(f"{item.name}: one image [C, H, W] was wanted, got {list(x.shape)}")
            return replace(decoded, x=x[0].numpy(), picture=pictures[0] if pictures else None)
        except EBPError as error:
            return replace(decoded, error=str(error))
        except Exception as error:  # a broken file can bring anything out of a decoder, and costs one row
            return replace(decoded, error=f"{item.name}: {type(error).__name__}: {error}")


class DecodeLoop:
    """Decodes chunks in order, in `workers` processes, or in the calling thread where that is 0.

    At most `2 * workers` chunks are under way. Where a worker dies, or brings nothing for `timeout` seconds, the chunk
    that was waited for is decoded image by image, each in a process of its own, and an image that ends it again
    becomes a row with that error; then new workers go on with the rest.
    """

    def __init__(self, decoder: Decoder, workers: int, timeout: float) -> None:
        self._decoder, self._workers, self._timeout = decoder, workers, timeout

    def run(self, chunks: Iterable[Chunk]) -> Generator[tuple[Chunk, list[Decoded]], None, None]:
        """Each chunk with its images. To be iterated outside the main thread: torch would else raise a worker's death
        wherever the main thread is just then."""
        if not self._workers:
            yield from ((chunk, _decode_chunk(self._decoder, chunk)) for chunk in chunks)
            return
        todo = iter(chunks)
        under_way: deque[Chunk] = deque()
        while True:
            again = list(under_way)
            under_way.clear()
            loader = self._loader(_remember(chain(again, todo), under_way), self._workers)
            try:
                with _deaf():
                    arrived = iter(loader)
                for decoded in arrived:
                    yield under_way.popleft(), decoded
                return
            except RuntimeError as error:
                if not under_way:
                    raise
                _note(error)
            chunk = under_way.popleft()
            yield chunk, self._one_by_one(chunk)

    def _one_by_one(self, chunk: Chunk) -> list[Decoded]:
        """The images of a chunk that a worker did not survive, each in a process of its own."""
        found: list[Decoded] = []
        for row, item in enumerate(chunk.items, chunk.first):
            try:
                with _deaf():
                    arrived = iter(self._loader([replace(chunk, first=row, items=(item,))], 1))
                found += next(arrived)
            except RuntimeError as error:
                reason = "took too long" if "timed out" in str(error) else "died"
                found.append(
                    Decoded(row, item.name, item.target, error=f"{item.name}: the process decoding it {reason}")
                )
        return found

    def _loader(self, chunks: Iterable[Chunk], workers: int) -> DataLoader[Any]:
        return DataLoader(
            _Chunks(self._decoder),
            batch_size=None,
            sampler=chunks,
            num_workers=workers,
            timeout=self._timeout,
            worker_init_fn=_start_worker,
            collate_fn=_as_it_is,
            multiprocessing_context=_processes(),
        )


class _Chunks(Dataset[list[Decoded]]):
    """Indexed by the chunks themselves, so that no worker holds the whole list."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __getitem__(self, chunk: Chunk) -> list[Decoded]:
        return _decode_chunk(self._decoder, chunk)


def _decode_chunk(decoder: Decoder, chunk: Chunk) -> list[Decoded]:
    return [decoder.decode(row, item) for row, item in enumerate(chunk.items, chunk.first)]


def _remember(chunks: Iterable[Chunk], under_way: deque[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        under_way.append(chunk)
        yield chunk


def _as_it_is(decoded: list[Decoded]) -> list[Decoded]:
    return decoded


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes begun in the block do not hear Ctrl-C, which reaches the whole group: the run ends them itself."""
    resource_tracker.ensure_running()  # a part of multiprocessing that would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a fork server that ran before this one asked for it
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    # torch's own watch looks at the parent, which is the fork server, and that waits for its children
    run = multiprocessing.parent_process()
    if run is not None:
        wait([run.sentinel])
        os._exit(1)


def _processes() -> Any:
    """Workers forked from a server that has imported what they need: no fork of a process with threads or CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _note(error: RuntimeError) -> None:
    with contextlib.suppress(Exception):
        warnings.warn(f"a decoding process is replaced: {str(error).splitlines()[0]}", RuntimeWarning, stacklevel=2)
