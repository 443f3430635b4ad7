"""Runs over data sets on many machines: Ray Data hands out the work, and workers that hold the model do it.

`attribute_dataset` takes any ray.data.Dataset; `run` does what `batch.run` does. Either way a worker is the
same code as on one machine, writes whole shards into a folder that all machines see, and is restarted by Ray where it
or its machine dies: what it had not finished is done again, to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..api import ExcitationBackprop
from ..errors import InputError
from ..extras import require
from ..net import Net, load
from .decoding import content_digest
from .output import Output
from .photos import preprocess_of
from .places import FilePlace, Item, MemoryPlace
from .running import BatchRun, Progress, RunSettings, Summary, prepare, target_column, target_text
from .source import ImageSource, ListingDigest, find_column, find_image_column

_MANY = 10_000  # blocks, or workers
NAME_COLUMNS = ("name", "path", "__key__", "file_name")
"""Tried in this order where no column is named."""


@dataclass(frozen=True)
class Cluster:
    """Ray workers for a run."""

    address: str | None = None
    """Of the Ray cluster; None is the one that RAY_ADDRESS names or, without it, this machine alone."""
    workers: int | None = None
    """How many; by default what the cluster has CPUs or GPUs for."""
    cpus: float = 1
    gpus: float = 0
    """Of each worker."""


def run(
    source: str | Path,
    method: ExcitationBackprop,
    out: str | Path,
    *,
    cluster: Cluster | None = None,
    resume: bool = False,
    verify_source: bool = False,
    progress: Progress = lambda done, total, failed: None,
    **settings: Any,
) -> Summary:
    """`batch.run` on Ray workers, here and on other machines that see `source` and `out`: the same files.

    settings: as for `batch.run`; `workers` are those that decode for each Ray worker, by default a thread on the CPU,
    and with a GPU a process for each of its CPUs but one. Raises what `batch.run` and `start_ray` raise.
    """
    how = cluster or Cluster()
    start_ray(how)  # before the folder is made: there may be no room
    if settings.get("workers") is None:
        settings["workers"] = max(0, int(how.cpus) - 1) if how.gpus else 0
    batch_run = prepare(source, method, out, device="cuda" if how.gpus else None, **settings)
    return run_on_ray(batch_run, batch_run.begin(resume, verify_source), how, progress)


def attribute_dataset(
    dataset: Any,
    model: Net | str | Path | Sequence[str | Path],
    layer: str,
    out: str | Path,
    *,
    contrast_layer: str | None = None,
    target: str | int | Sequence[int] = "top1",
    preprocess: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    batch: int = 8,
    shard_size: int = 256,
    resume: bool = False,
    image_column: str | None = None,
    name_column: str | None = None,
    cluster: Cluster | None = None,
    **options: Any,
) -> Summary:
    """Maps of every row of a ray.data.Dataset, written to the folder `out` as `batch.run` writes them.

    dataset: rows with an image: decoded (uint8 [H, W, 3], as ray.data.read_images gives it), encoded bytes, or a path.
    model: a Net, or the files that `ebp_cuda.load` takes; read here and sent to each worker once.
    target: as for `batch.run`; "@COLUMN" takes each row's classes from a column.
    shard_size: rows per output file; a shard is named after its rows, so that one done twice is written once.
    image_column, name_column: where not given, the first of the usual names that is there.
    cluster: the workers; `address` only where Ray is not initialized yet. options: as for `ExcitationBackprop`.

    Ray orders and cuts a data set as it likes, unless DataContext.preserve_order is set: the maps of two runs are then
    the same up to the last bits, in other shards. Raises InputError, UnsupportedError, and Ray's own errors.
    """
    how = cluster or Cluster()
    ray = start_ray(how)
    net = model if isinstance(model, Net) else load(*([model] if isinstance(model, str | Path) else model))
    method = ExcitationBackprop(net, layer, contrast_layer, **options)
    columns = _Columns(dataset.columns(), image_column, name_column, target_column(target))
    preprocessing = preprocess_of(net, dict(preprocess or {}))
    device = "cuda" if how.gpus else None
    settings = RunSettings(target_text(target), preprocessing, batch, shard_size, device=device, workers=0)
    batch_run = BatchRun(method, _Rows(columns, {}), Output(out), settings, labels or net.labels)
    batch_run.begin(resume)
    workers = _arguments(ray, batch_run, how, _MANY, columns)
    # one to begin with, more as they find room: reading the data needs some too
    workers["compute"] = ray.data.ActorPoolStrategy(min_size=1, max_size=workers["compute"].max_size)
    done = dataset.map_batches(_DatasetWorker, batch_size=shard_size, batch_format="numpy", **workers)
    summary = _collect(done, 0, 0, lambda done, total, failed: None)
    return replace(summary, images=summary.done)


def run_on_ray(batch_run: BatchRun, shards: Sequence[int], cluster: Cluster, progress: Progress) -> Summary:
    """Does the given shards of a run on Ray workers; returns when all are written. Raises Ray's errors."""
    ray = start_ray(cluster)
    there = len(batch_run.source) - sum(len(batch_run.rows(shard)) for shard in shards)
    if not shards:
        return Summary(len(batch_run.source), 0, 0, 0.0)
    ray.data.DataContext.get_current().enable_progress_bars = False  # `progress` says more
    # a block is what Ray hands out and does again: a shard each, and a few where there are very many
    numbered = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=min(len(shards), _MANY))
    workers = _arguments(ray, batch_run, cluster, len(shards))
    done = numbered.map_batches(_ShardWorker, batch_size=1, **workers)
    return _collect(done, len(batch_run.source), there, progress)


def start_ray(cluster: Cluster) -> Any:
    """Ray, connected to `cluster.address` or started here.

    Raises UnsupportedError where it is missing, InputError where no cluster answers or a worker would find no room.
    """
    require("ray.data", "ray", "a run on several machines")
    ray = require("ray", "ray", "a run on several machines")
    if not ray.is_initialized():
        try:
            ray.init(address=cluster.address, log_to_driver=False)
        except ConnectionError as error:
            raise InputError(f"address {cluster.address!r}: no Ray cluster answers there: {error}") from error
    _room(ray, cluster)
    return ray


class _ModelWorker:
    """Holds the model on a worker for as long as it lives."""

    def __init__(self, shared: Any, threads: int) -> None:
        torch.set_num_threads(threads)
        graph, options, *given = require("ray", "ray", "a worker").get(shared)
        self._job = BatchRun(ExcitationBackprop(Net(graph), **options), *given)

    def _do(self, batch_run: BatchRun, shard: int) -> dict[str, list[int]]:
        """Does one shard, unless a worker that died afterwards had finished it."""
        if batch_run.output.is_whole(batch_run.name(shard)):
            return {"images": [len(batch_run.rows(shard))], "failed": [0]}
        summary = batch_run.run([shard])
        return {"images": [summary.done], "failed": [summary.failed]}


class _ShardWorker(_ModelWorker):
    def __call__(self, numbers: Mapping[str, Any]) -> dict[str, list[int]]:
        return self._do(self._job, int(numbers["shard"][0]))


class _DatasetWorker(_ModelWorker):
    def __init__(self, columns: _Columns, *given: Any) -> None:
        super().__init__(*given)
        self._columns = columns

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[int]]:
        source = _Rows(self._columns, rows)
        return self._do(self._job.over(source, f"shard-{source.listing.rows[:16]}"), 0)


class _Columns:
    """Which columns of a data set hold what."""

    def __init__(self, head: Sequence[str], image: str | None, name: str | None, target: str | None) -> None:
        where = Path("ray.data.Dataset")
        self.image = find_image_column(where, head, image)
        self.name = find_column(where, head, name) if name else next((c for c in NAME_COLUMNS if c in head), None)
        self.target = find_column(where, head, target) if target else None


class _Rows(ImageSource):
    """A batch of a data set's rows, in memory."""

    kind, location = "dataset", Path("ray.data.Dataset")

    def __init__(self, columns: _Columns, rows: Mapping[str, Any]) -> None:
        self._columns, self._rows = columns, rows
        self.columns, self.listing = dict(vars(columns)), ListingDigest()
        for row in range(len(self)):
            item = self[row]
            content = item.place.path if isinstance(item.place, FilePlace) else content_digest(item.place.read())
            self.listing.add(item.name, item.target, content)

    def describe(self) -> dict[str, object]:
        return {"kind": self.kind, "path": str(self.location), "columns": self.columns}

    def __len__(self) -> int:
        return len(self._rows[self._columns.image]) if self._rows else 0

    def __getitem__(self, row: int) -> Item:
        columns = self._columns
        image = self._rows[columns.image][row]
        image = image.get("bytes") if isinstance(image, Mapping) else image
        place = FilePlace(image) if isinstance(image, str) else MemoryPlace(b"" if image is None else image)
        name = str(self._rows[columns.name][row]) if columns.name else f"#{row}"
        return Item(name, place, _text(self._rows[columns.target][row]) if columns.target else None)


def _arguments(ray: Any, batch_run: BatchRun, cluster: Cluster, most: int, *first: Any) -> dict[str, Any]:
    """What map_batches is told of the workers; model and listing are sent to each machine once. To be held until the
    end: a worker that Ray restarts reads them again."""
    output = Output(batch_run.output.folder.resolve())
    model = batch_run.method.net.graph, batch_run.options()
    shared = ray.put((*model, batch_run.source, output, batch_run.settings, batch_run.labels))
    return {
        "fn_constructor_args": (*first, shared, max(1, int(cluster.cpus))),
        "compute": ray.data.ActorPoolStrategy(size=min(cluster.workers or most, _room(ray, cluster), most)),
        "num_cpus": cluster.cpus,
        "num_gpus": cluster.gpus,
    }


def _room(ray: Any, cluster: Cluster) -> int:
    """How many workers fit. Raises InputError where none does."""
    has = ray.cluster_resources()
    rooms = [has.get(kind, 0) // each for kind, each in (("CPU", cluster.cpus), ("GPU", cluster.gpus)) if each]
    room = int(min(rooms, default=_MANY))
    if not room:
        raise InputError(
            f"a worker with {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs fits nowhere: "
            f"Ray has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
        )
    return room


def _collect(done: Any, total: int, there: int, progress: Progress) -> Summary:
    start, images, failed = time.monotonic(), 0, 0
    progress(there, total, 0)
    for row in done.iter_rows():
        images, failed = images + row["images"], failed + row["failed"]
        progress(there + images, total, failed)
    return Summary(total, images, failed, time.monotonic() - start)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | np.ndarray) else "" if value is None else str(value)
