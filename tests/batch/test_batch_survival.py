"""Runs over many images that are killed, whose workers die or hang, and how much memory they take."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import paths
from support.batch_data import DyingOncePlace, DyingPlace, HangingPlace, files, photos, write_folder

from ebp_cuda.batch.decoding import Chunk, Decoded, Decoder
from ebp_cuda.batch.places import FilePlace, Item, MemoryPlace
from ebp_cuda.batch.workers import DecodeLoop
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.models import digits

pytestmark = pytest.mark.slow


def shards_begun(out: Path) -> set[str]:
    return {path.name for path in (out / "shards").iterdir()} if (out / "shards").is_dir() else set()


_NURSERY = """
import os, sys
from pathlib import Path
from support.batch_data import SMALL, batch, method
import torch
torch.set_num_threads(1)
source, out, warm = map(Path, sys.argv[1:])
eb = method()
batch.run(source, eb, warm, target="top2", **SMALL)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        batch.run(source, eb, out, target="top2", resume=True, **SMALL)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs from `source` to `out`, each in a process of its own, forked from one that has loaded the network: to start
    is what takes a run its time. It makes an undisturbed run in `whole` before."""

    def __init__(self, source: Path, out: Path, whole: Path) -> None:
        command = [sys.executable, "-c", _NURSERY, str(source), str(out), str(whole)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=paths.TESTS, bufsize=1, **pipes)

    def begin(self) -> int:
        """A new run; its process."""
        print(file=self._process.stdin)
        return int(self._process.stdout.readline())

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether the last run has ended, or does so in the next seconds."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def exit_code(self) -> int:
        """How the last run ended."""
        return int(self._process.stdout.readline())

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_killed_twenty_times(tmp_path: Path) -> None:
    """About 15 s: a run is killed with SIGKILL at a random moment of its work, and resumed, twenty times over."""
    folder, out = write_folder(tmp_path / "photos", photos(72)), tmp_path / "out"
    random = np.random.default_rng(0)
    killed_at_work = 0
    with Nursery(folder, out, tmp_path / "whole") as nursery:
        for _ in range(100):
            if killed_at_work == 20:
                break
            before, run = shards_begun(out), nursery.begin()
            untouched = files(tmp_path / "whole")
            while not nursery.ended(0.005) and shards_begun(out) <= before:
                pass
            if not nursery.ended(random.uniform(0, 0.4)):
                os.kill(run, signal.SIGKILL)
            killed_at_work += nursery.exit_code() == -signal.SIGKILL
            there = files(out)
            whole = {name: data for name, data in there.items() if "/." not in name}
            assert all(untouched[name] == data for name, data in whole.items())
            assert len(there) - len(whole) <= 1, "more than one shard was under way"
            assert before - shards_begun(out) <= {name for name in before if name.startswith(".")}
            if len(whole) == len(untouched):
                shutil.rmtree(out)
        assert killed_at_work == 20, "most runs came to their end before they were killed"
        nursery.begin()
        assert nursery.exit_code() == 0
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
    run = subprocess.Popen(command, cwd=paths.TESTS, start_new_session=True, stderr=subprocess.DEVNULL)
    while not files(tmp_path / "out") and run.poll() is None:
        time.sleep(0.1)
    assert len(session_of(run.pid)) >= 4  # the run, two workers, their server
    run.kill()
    run.wait()
    moment = time.monotonic() + 30
    while session_of(run.pid) and time.monotonic() < moment:
        time.sleep(0.1)
    assert session_of(run.pid) == []


def test_images_that_no_decoder_survives(tmp_path: Path) -> None:
    """About 10 s: one image ends its process, one holds it, one ends it the first time; 120 s are allowed."""
    images = photos(5)
    folder = write_folder(tmp_path / "photos", images)
    items = [Item(name, FilePlace(str(folder / name))) for name in images]
    once = DyingOncePlace(items[0].place.path, str(tmp_path / "died"))
    bad = {"bad": DyingPlace(), "slow": HangingPlace(), "once": once}
    items[2:2] = [Item(name, place) for name, place in bad.items()]
    found, seconds, warned = decoded(items[:3] + items[4:], timeout=120)
    assert seconds < 60, "the end of a process was not seen before the time was up"
    assert warned == ["died (SIGKILL) at bad"] * 2 + ["died (SIGKILL) at once"]
    assert [image.error for image in found if image.x is None] == ["bad: the process decoding it died (SIGKILL)"]
    found, _, warned = decoded(items, timeout=2)
    assert warned == ["died (SIGKILL) at bad"] * 2 + ["took too long at slow"] * 2
    assert found[3].error == "slow: the process decoding it took too long"
    assert [image.name for image in found if image.x is None] == ["bad", "slow"]


def decoded(items: Sequence[Item], timeout: float) -> tuple[list[Decoded], float, list[str]]:
    """The images, in chunks of two by two processes; how long it took, and why processes were replaced, sorted."""
    loop = DecodeLoop(Decoder(Preprocess.from_dict(digits.PREPROCESS)), workers=2, timeout=timeout)
    chunks = [Chunk(0, first, tuple(items[first : first + 2]), False) for first in range(0, len(items), 2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.monotonic()
        found = list(loop.run(chunks))
    assert [chunk for chunk, _ in found] == chunks
    images = [image for _, group in found for image in group]
    assert [(image.row, image.name) for image in images] == [(row, item.name) for row, item in enumerate(items)]
    replaced = "a decoding process is replaced: it "
    return images, time.monotonic() - start, sorted(str(one.message).removeprefix(replaced) for one in caught)


def test_processes_that_are_killed_change_nothing() -> None:
    """About 5 s: all decoding processes are killed three times, also while they hand over an image."""
    random = np.random.default_rng(0)
    places = [MemoryPlace(random.random((700, 500, 3), np.float32)) for _ in range(40)]  # more than fits into a pipe
    items = [Item(f"{row}.npy", place) for row, place in enumerate(places)]
    chunks = [Chunk(0, first, tuple(items[first : first + 4]), False) for first in range(0, 40, 4)]
    decoder = Decoder(Preprocess(size=(700, 500)))
    wanted = [image for _, group in DecodeLoop(decoder, 0, 60).run(chunks) for image in group]
    found, killed = [], 0
    with pytest.warns(RuntimeWarning, match="a decoding process is replaced"):
        for chunk, group in DecodeLoop(decoder, 2, 60).run(chunks):
            found += group
            if chunk.first % 16 == 0:
                time.sleep(0.5)  # each has begun to send an image by then, and nobody takes it
                for process in multiprocessing.active_children():
                    process.kill()
                    killed += 1
    assert killed >= 4 and len(found) == 40
    assert all(np.array_equal(a.x, b.x) and a.error is None for a, b in zip(found, wanted, strict=True))


def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    """About 8 s: each process would import the script, and the script would start processes."""
    write_folder(tmp_path / "photos", photos(3))
    script = "from support.batch_data import batch, method\n"
    script += "batch.run('photos', method(), 'maps', target=3, resume=True, workers=1)\n"
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join([str(paths.TESTS), *sys.path])
    command = [sys.executable, "script.py"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        "ebp_cuda.errors.UnsupportedError: 3 decoding processes died (exit code 1) at their start; in a script, the "
        "calls must stand under `if __name__ == '__main__':`"
    )


_RUN = """
import sys
sys.path.insert(0, "../tools")
from memory import resident
from support.batch_data import SMALL, batch, method
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
        done = subprocess.run(command, cwd=paths.TESTS, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1e6)
    assert abs(peaks[1] - peaks[0]) < 25, f"{peaks[0]:.0f} MB for 100 images, {peaks[1]:.0f} MB for 300"
