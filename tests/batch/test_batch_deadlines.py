"""Decoders that stop: whatever one does to its process or thread, the run goes on, and it costs one row."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from support.batch_data import SMALL, HangingPlace, method, photos, write_folder

from ebp_cuda import batch
from ebp_cuda.batch import channel
from ebp_cuda.batch.decoding import Chunk, Decoded, Decoder
from ebp_cuda.batch.places import Item, MemoryPlace
from ebp_cuda.batch.workers import DecodeLoop
from ebp_cuda.images.preprocess import Preprocess

LARGE = MemoryPlace(np.zeros((600, 600, 3), np.uint8))
"""1 MB to a process and 4 MB back: more than a socket holds, so that messages are under way while nobody reads."""


@dataclass(frozen=True)
class StoppingPlace:
    """An image that stops its process as a debugger or a frozen group would, or holds Python's lock for ever."""

    how: str

    def read(self) -> bytes:
        time.sleep(0.3)  # by now the image before is being sent
        if self.how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the lock, as an endless loop in C would
        return b""


def decoded(items: Sequence[Item], workers: int, step: int = 1, pause: float = 0.0) -> list[Decoded]:
    """The images, in chunks of `step`, by a run that takes `pause` seconds over each chunk."""
    chunks = [Chunk(0, row, tuple(items[row : row + step]), False) for row in range(0, len(items), step)]
    images: list[Decoded] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, group in DecodeLoop(Decoder(Preprocess()), workers, timeout=1.5).run(chunks):
            images += group
            time.sleep(pause)
    return images


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "holding the lock"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_process_that_stops_in_the_middle_of_a_message_is_replaced(how: str, step: int) -> None:
    """About 10 s each: half of an earlier image is on its way from it, and the next ones are on their way to it."""
    items = [Item(f"{row}.npy", LARGE) for row in range(6)]
    items[2] = Item("stopping", StoppingPlace(how))  # type: ignore[arg-type]
    start = time.monotonic()
    images = decoded(items, workers=1, step=step, pause=0.5)
    assert [image.name for image in images if image.error] == ["stopping"]
    assert images[2].error == "stopping: the process decoding it took too long"
    assert time.monotonic() - start < 60, "the deadlines did not hold"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_pipe_among_the_images_is_a_row(workers: int, tmp_path: Path) -> None:
    """To open a pipe for reading waits until somebody writes to it."""
    folder = write_folder(tmp_path / "photos", photos(3))
    os.mkfifo(folder / "pipe.jpg")
    settings: dict[str, Any] = {**SMALL, "workers": workers}
    summary = batch.run(folder, method(), tmp_path / "out", target=3, timeout=20.0, **settings)
    assert (summary.done, summary.failed) == (4, 1)
    (error,) = (entry.error for entry in batch.open(tmp_path / "out") if entry.error)
    assert error.endswith("pipe.jpg: not a regular file")


def test_a_thread_whose_decoder_never_returns_is_left_behind() -> None:
    items = [Item("0", LARGE), Item("never", HangingPlace()), Item("2", LARGE)]  # type: ignore[arg-type]
    images = decoded(items, workers=0)
    assert [image.error for image in images] == [None, "never: decoding it took too long", None]


def test_a_decoder_may_raise_anything() -> None:
    @dataclass(frozen=True)
    class Raising:
        error: BaseException

        def read(self) -> bytes:
            raise self.error

    errors = [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), MemoryError(), OSError(5, "x\udcff")]
    images = decoded([Item(f"{n}", Raising(error)) for n, error in enumerate(errors)], workers=0)  # type: ignore[arg-type]
    assert [image.error is not None for image in images] == [True] * len(errors)
    for image in images:
        assert image.error is not None and image.error.encode(), "a row must be valid Unicode"


@pytest.mark.slow
def test_processes_beside_a_run_that_has_computed() -> None:
    """About 5 s: a fork of a process whose torch has threads hangs; decoding processes come from a server of their own,
    also where the user's program forks by default."""
    image = torch.rand(1, 8, 64, 64)
    torch.nn.functional.conv2d(image, torch.rand(8, 8, 3, 3))  # torch's threads are there now
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        images = decoded([Item(f"{row}", LARGE) for row in range(4)], workers=2)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert [image.error for image in images] == [None] * 4


def test_messages_arrive_whole_in_both_directions_whatever_their_size() -> None:
    ours, theirs = channel.pair()
    sent = [b"", b"x" * 7, os.urandom(3_000_000)]
    for message in sent:
        ours.send(message)
    assert ours.flush() and ours.has_unsent, "3 MB do not fit into a socket"
    received = []
    reader = Thread(target=lambda: received.extend(channel.receive_message(theirs) for _ in sent), daemon=True)
    reader.start()
    while ours.has_unsent:
        ours.flush()
    reader.join()
    assert received == sent
    writer = Thread(target=lambda: [channel.send_message(theirs, message) for message in sent], daemon=True)
    writer.start()
    back: list[bytes] = []
    while len(back) < len(sent):
        message = ours.receive()[1]
        back += [] if message is None else [bytes(message)]
    writer.join()
    assert back == sent
    assert ours.receive() == (False, None)
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()
