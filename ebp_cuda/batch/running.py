"""A run: images decoded ahead in other processes, attributed here, written behind in a thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from ..api import ExcitationBackprop
from ..errors import InputError
from ..images.photo import EXACT, MAX_PIXELS, Decoding
from ..images.preprocess import Preprocess
from ..ops import build_info
from .attributing import Attributor
from .decoding import Chunk, Decoder
from .identity import check_contents, graph_digest, was_touched
from .output import FORMAT, Output
from .photos import preprocess_of
from .source import ImageSource
from .sources import open_source
from .threads import BackgroundCalls, prefetch
from .workers import DecodeLoop
from .writing import How, ShardWriter

_AHEAD, _BEHIND = 2, 4  # chunks decoded and waiting; groups attributed and waiting to be written


Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class RunSettings:
    """How a run goes. Those of the first group stand in the manifest, and --resume wants them unchanged."""

    target: str
    """What `targets.parse_targets` takes, or "@COLUMN": what the source says of each image."""
    preprocess: Preprocess
    batch: int = 8
    shard_size: int = 1024
    overlays: bool = False
    decoding: Decoding = EXACT
    device: str | None = None
    """Where the method runs, if that is not the device it has here: "cuda" on workers with GPUs."""

    workers: int = 1
    """Decoding processes; 0 decodes in a thread."""
    timeout: float = 120.0
    """Seconds that decoding an image may take."""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    images: int
    """Images of the source, of which the last call did `done`; those before it were there already."""
    done: int
    failed: int
    """Of those `done`: they have an error in the index and no map."""
    seconds: float


def run(
    source: str | Path,
    method: ExcitationBackprop,
    out: str | Path,
    *,
    resume: bool = False,
    verify_source: bool = False,
    progress: Progress = lambda done, total, failed: None,
    **settings: Any,
) -> Summary:
    """Maps of every image of a source, written to the folder `out`; see docs/batch.md.

    An image that cannot be read or does not fit is a row with its error. Ctrl-C drops the shard under way and leaves
    the others.

    Args:
        source: what `open_source` takes.
        method: what is run.
        out: the folder, new or empty unless `resume`.
        resume: go on with the run that wrote `out`.
        verify_source: with `resume`, read the images of the finished shards again and compare their content; else that
            is done only where files were touched since the run began.
        progress: called with the images there, the images in all, and the images failed in this call.
        settings: as for `prepare`.

    Raises:
        InputError: before anything is written, or where `out` cannot be written to its end.
        UnsupportedError: before anything is written.
    """
    prepared = prepare(source, method, out, **settings)
    return prepared.run(prepared.begin(resume, verify_source), progress)


def prepare(
    source: str | Path,
    method: ExcitationBackprop,
    out: str | Path,
    *,
    target: str | int | Sequence[int] = "top1",
    preprocess: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    batch: int = 8,
    shard_size: int = 1024,
    workers: int | None = None,
    overlays: bool = False,
    device: str | None = None,
    timeout: float = 120.0,
    image_column: str | None = None,
    name_column: str | None = None,
    max_pixels: int = MAX_PIXELS,
    fast_decoding: bool = False,
    limit: int | None = None,
) -> BatchRun:
    """What `run` does, ready to begin.

    Args:
        source: what `open_source` takes.
        method: what is run.
        out: the folder.
        target: classes as for `ebp-cuda attribute`, or "@COLUMN" of the source.
        preprocess: fields of `Preprocess` that replace the model's.
        labels: names of the classes, where the model has none or others are wanted.
        batch: images attributed at a time.
        shard_size: images per output file.
        workers: decoding processes, 0 for a thread; by default one for six cores on the CPU, and with a GPU all but
            one core.
        overlays: write pictures too.
        device: where the method will run, if not where it is.
        timeout: seconds that decoding an image may take.
        image_column: of a .csv or .parquet: the images.
        name_column: of a .parquet: their names.
        max_pixels: a photo of more is a row with that error.
        fast_decoding: decode large photos at a fraction of their size (`Decoding.fast`).
        limit: of the source's images only so many, from the first on.

    Raises:
        InputError: the source cannot be read, or a setting cannot be used.
    """
    opened = open_source(source, image=image_column, name=name_column, target=target_column(target), out=out)
    if limit is not None:
        opened = opened.first(limit)
    how = preprocess_of(method.net, dict(preprocess or {}))
    count = default_workers(method.plan.device) if workers is None else workers
    decoding = Decoding(max_pixels, fast_decoding)
    settings = RunSettings(target_text(target), how, batch, shard_size, overlays, decoding, device, count, timeout)
    return BatchRun(method, opened, Output(out), settings, labels or method.net.labels)


class BatchRun:
    """One run: what to do, and where it goes. A worker of a cluster makes the same one."""

    def __init__(
        self,
        method: ExcitationBackprop,
        source: ImageSource,
        output: Output,
        settings: RunSettings,
        labels: Sequence[str] | None = None,
    ) -> None:
        if settings.batch < 1 or settings.shard_size < 1 or settings.workers < 0 or settings.timeout <= 0:
            raise InputError(f"batch, shard_size and timeout are positive, workers at least 0; got {settings}")
        self.method, self.source, self.output, self.settings = method, source, output, settings
        self.labels = labels
        self.name: Callable[[int], str] = shard_name
        self.attributor = Attributor(method, settings.target, labels, settings.batch)

    def over(self, source: ImageSource, name: str) -> BatchRun:
        """The same for the images of another source, as one shard of that name."""
        other = copy(self)
        other.source, other.name = source, lambda _: name
        other.settings = replace(self.settings, shard_size=max(1, len(source)))
        return other

    @property
    def shards(self) -> range:
        """Numbers of all shards."""
        return range(-(-len(self.source) // self.settings.shard_size))

    def rows(self, shard: int) -> range:
        """The images of a shard."""
        size = self.settings.shard_size
        return range(shard * size, min((shard + 1) * size, len(self.source)))

    def begin(self, resume: bool, verify_source: bool = False) -> list[int]:
        """Makes or checks the folder; the shards that are still to do. Raises InputError."""
        manifest = self.manifest()
        (self.output.resume if resume else self.output.create)(manifest)
        whole = [number for number in self.shards if self.output.is_whole(self.name(number))]
        touched = was_touched(self.output.read_manifest(), manifest)
        if verify_source or touched:
            reason = "files of the source were touched since the run began" if touched else "--verify-source"
            done = [(self.rows(number), self.output.contents(self.name(number))) for number in whole]
            check_contents(self.source, done, reason)
        return [number for number in self.shards if number not in set(whole)]

    def manifest(self) -> dict[str, Any]:
        """What a later run must agree with, and what it was made with."""
        described = dict(self.source.describe())
        origin = {"source": described.pop("path"), "model": self.method.net.graph.origin}
        return {
            "format": FORMAT,
            "source": described,
            "model": {"digest": graph_digest(self.method.net.graph), "labels": list(self.labels or [])},
            "settings": {**self.options(), **_kept(self.settings)},
            "made_with": {**origin, **versions()},
        }

    def options(self) -> dict[str, Any]:
        """What decides the maps, under the names that `ExcitationBackprop` takes."""
        method, plan = self.method, self.method.plan
        return {
            "layer": method.layer,
            "contrast_layer": method.contrast_layer,
            "top": method.top,
            "rules": plan.rules,
            "dtype": "fp64" if plan.dtype == torch.float64 else plan.precision,
            "device": self.settings.device or plan.device.type,
            "max_memory": method.max_memory,
        }

    def run(self, shards: Sequence[int], progress: Progress = lambda done, total, failed: None) -> Summary:
        """Does the given shards, one after another."""
        start, done, failed = time.monotonic(), 0, 0
        there = len(self.source) - sum(len(self.rows(shard)) for shard in shards)
        progress(there, len(self.source), 0)
        # generators are closed by name: a KeyboardInterrupt must not leave them to the garbage collector
        with closing(self._attribute(shards)) as groups:
            for images, errors in groups:
                done, failed = done + images, failed + errors
                progress(there + done, len(self.source), failed)
        return Summary(len(self.source), done, failed, time.monotonic() - start)

    def _attribute(self, shards: Sequence[int]) -> Generator[tuple[int, int], None, None]:
        """Does the work; yields how many images came through, and how many of them failed."""
        settings = self.settings
        decoder = Decoder(settings.preprocess, settings.overlays, settings.decoding)
        loop = DecodeLoop(decoder, settings.workers, settings.timeout)
        writer: ShardWriter | None = None
        try:
            decoding = prefetch(loop.run(self._chunks(shards)), _AHEAD)
            with closing(decoding) as decoded, BackgroundCalls(_BEHIND) as writing:
                for chunk, images in decoded:
                    if chunk.first == 0:
                        writer = self._writer(chunk.shard)
                    assert writer is not None  # a shard begins with its row 0
                    for group in self.attributor.add(images, flush=chunk.last):
                        writing.submit(writer.add, group)
                        yield len(group.images), 0 if group.maps is not None else len(group.images)
                    if chunk.last:
                        writing.submit(writer.finish)
                        writing.wait()  # so that whatever happens next costs one shard and no more
        finally:
            if writer is not None and not writer.finished:
                writer.drop()

    def _chunks(self, shards: Sequence[int]) -> Iterator[Chunk]:
        step = min(self.settings.batch, 16)
        for shard in shards:
            rows = self.rows(shard)
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                yield Chunk(shard, first, tuple(self.source[row] for row in part), part.stop == rows.stop)

    def _writer(self, shard: int) -> ShardWriter:
        how = How(self.method.layer, self.method.contrast_layer, self.method.plan.rules, self.labels)
        return ShardWriter(self.output, self.name(shard), how, self.settings.overlays)


def shard_name(number: int) -> str:
    """The name of a numbered shard's files."""
    return f"shard-{number:06d}"


def target_column(target: str | int | Sequence[int]) -> str | None:
    """The column that "@COLUMN" names."""
    return target[1:] if isinstance(target, str) and target.startswith("@") else None


def target_text(target: str | int | Sequence[int]) -> str:
    """A target as the command line writes it."""
    if isinstance(target, str):
        return target
    return str(target) if isinstance(target, int) else ",".join(str(int(index)) for index in target)


def default_workers(device: torch.device) -> int:
    """Decoding processes: a core decodes about six times as many images as it attributes, a GPU needs many cores."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 6 if device.type == "cpu" else cores - 1)


def versions() -> dict[str, str]:
    """What has a say in the last bits: libraries, and the instruction set of the CPU's kernels."""
    from .. import __version__

    libraries = {"torch": torch.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
    return {"ebp_cuda": __version__, **libraries, "cpu_isa": build_info()["cpu_isa"]}


def _kept(settings: RunSettings) -> dict[str, Any]:
    kept = {"target": settings.target, "preprocess": settings.preprocess.to_dict(), "overlays": settings.overlays}
    kept["decoding"] = {"max_pixels": settings.decoding.max_pixels, "fast": settings.decoding.fast}
    return {**kept, "batch": settings.batch, "shard_size": settings.shard_size}
