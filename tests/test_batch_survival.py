"""Runs over many images that are killed, whose workers die or hang, and how much memory they take."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_data import SMALL, DyingPlace, HangingPlace, files, method, photos, run_until_killed, write_folder

from ebp_cuda import batch
from ebp_cuda.batch.decoding import Chunk, DecodeLoop, Decoder
from ebp_cuda.batch.places import FilePlace, Item
from ebp_cuda.models import digits
from ebp_cuda.preprocess import Preprocess

pytestmark = pytest.mark.slow


def shards_begun(out: Path) -> set[str]:
    return {path.name for path in (out / "shards").iterdir()} if (out / "shards").is_dir() else set()


def test_killed_twenty_times(tmp_path: Path) -> None:
    """About 30 s: a run is killed with SIGKILL at a random moment of its work, and resumed, twenty times over."""
    folder, out = write_folder(tmp_path / "photos", photos(72)), tmp_path / "out"
    batch.run(folder, method(), tmp_path / "whole", target="top2", **SMALL)
    untouched = files(tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["batch_data"])
    random = np.random.default_rng(0)
    killed_at_work = 0
    for _ in range(100):
        if killed_at_work == 20:
            break
        before = shards_begun(out)
        process = context.Process(target=run_until_killed, args=(folder, out))
        process.start()
        while process.is_alive() and shards_begun(out) <= before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.4))
        process.kill()
        process.join()
        killed_at_work += process.exitcode == -9
        there = files(out)
        whole = {name: data for name, data in there.items() if "/." not in name}
        assert all(untouched[name] == data for name, data in whole.items())
        assert len(there) - len(whole) <= 1, "more than one shard was under way"
        assert before - shards_begun(out) <= {name for name in before if name.startswith(".")}
        if len(whole) == len(untouched):
            shutil.rmtree(out)
    assert killed_at_work == 20, "most runs came to their end before they were killed"
    run_until_killed(folder, out)
    assert files(out) == untouched


def session_of(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry.name)) == leader and "State:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
    return found


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """About 15 s: decoding processes end with the run, though nobody is left to end them."""
    source = write_folder(tmp_path / "photos", photos(200))
    command = [sys.executable, "-c", _RUN, str(source), str(tmp_path / "out"), "2"]
    run = subprocess.Popen(command, cwd=Path(__file__).parent, start_new_session=True, stderr=subprocess.DEVNULL)
    while not files(tmp_path / "out") and run.poll() is None:
        time.sleep(0.1)
    assert len(session_of(run.pid)) >= 4  # the run, two workers, their server
    run.kill()
    run.wait()
    moment = time.monotonic() + 30
    while session_of(run.pid) and time.monotonic() < moment:
        time.sleep(0.1)
    assert session_of(run.pid) == []


@pytest.mark.parametrize(("place", "timeout"), [(DyingPlace(), 10), (HangingPlace(), 10)], ids=["dies", "hangs"])
def test_images_that_no_decoder_survives(place: Any, timeout: float, tmp_path: Path) -> None:
    """About 30 s each: a worker's end is noticed after the timeout, and two or three have to end.
    (Ten seconds, because a worker's start counts too, and on a busy machine takes some.)"""
    images = photos(5)
    folder = write_folder(tmp_path, images)
    items = [Item(name, FilePlace(str(folder / name))) for name in images]
    items.insert(3, Item("bad", place))
    chunks = [Chunk(0, first, tuple(items[first : first + 2]), False) for first in (0, 2, 4)]
    loop = DecodeLoop(Decoder(Preprocess.from_dict(digits.PREPROCESS)), workers=2, timeout=timeout)
    with pytest.warns(RuntimeWarning, match="a decoding process is replaced"):
        found = list(loop.run(chunks))
    assert [chunk.first for chunk, _ in found] == [0, 2, 4]
    decoded = [image for _, group in found for image in group]
    assert [image.row for image in decoded] == list(range(6))
    end = "died" if isinstance(place, DyingPlace) else "took too long"
    assert decoded[3].error == f"bad: the process decoding it {end}"
    assert all(image.x is not None for row, image in enumerate(decoded) if row != 3)


_RUN = """
import sys
sys.path.insert(0, "../tools")
from memory import resident
from batch_data import SMALL, batch, method
import torch
torch.set_num_threads(1)
batch.run(sys.argv[1], method(), sys.argv[2], **{**SMALL, "shard_size": 16, "workers": int(sys.argv[3])})
print(resident("VmHWM"))
"""


def test_memory_stays(tmp_path: Path) -> None:
    """About 25 s: the peak of a run over 300 images is that of one over 100, each in a process of its own."""
    peaks = []
    photo = photos(1)["a/000.png"]
    for count in (100, 300):
        source = write_folder(tmp_path / str(count), {f"{row}.png": photo for row in range(count)})
        command = [sys.executable, "-c", _RUN, str(source), str(tmp_path / f"out{count}"), "0"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1e6)
    assert abs(peaks[1] - peaks[0]) < 25, f"{peaks[0]:.0f} MB for 100 images, {peaks[1]:.0f} MB for 300"
