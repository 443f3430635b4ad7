"""The command batch: maps of a whole data set."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ..errors import InputError
from .app import app
from .grouping import grouped
from .options import Decoding, Files, Photos, Sweep, option, warn_of_preprocess

if TYPE_CHECKING:
    from ..api import ExcitationBackprop
    from ..batch.ray import Cluster

_SPOKEN = 30.0  # seconds between two lines where stderr is no terminal


@dataclass(frozen=True)
class Machines:
    """Who does the work."""

    PANEL: ClassVar[str] = "Cluster"

    engine: Annotated[str, option("--engine", "NAME", "local | ray")] = "local"
    address: Annotated[str | None, option("--address", "HOST:PORT", "of a Ray cluster; else $RAY_ADDRESS, or here")] = (
        None
    )
    ray_workers: Annotated[int | None, typer.Option("--ray-workers", min=1, help="else what there is room for")] = None
    cpus: Annotated[float, typer.Option("--worker-cpus", min=0.1, help="CPUs of a Ray worker")] = 1
    gpus: Annotated[float, typer.Option("--worker-gpus", min=0, help="GPUs of a Ray worker")] = 0

    def cluster(self) -> Cluster | None:
        """Ray's workers, or None. Raises InputError for options that do not go together."""
        from ..batch.ray import Cluster

        if self.engine not in ("local", "ray"):
            raise InputError(f"--engine {self.engine}: wanted local or ray")
        asked = Cluster(self.address, self.ray_workers, self.cpus, self.gpus)
        if self.engine == "local" and asked != Cluster():
            raise InputError("--address, --ray-workers, --worker-cpus and --worker-gpus belong to --engine ray")
        return asked if self.engine == "ray" else None


@app.command()
@grouped
def batch(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="folder, .txt, .csv, .tar or .parquet")],
    files: Files,
    sweep: Sweep,
    photos: Photos,
    decoding: Decoding,
    machines: Machines,
    out: Annotated[Path, option("--out", "DIR", "shards, index and manifest go here")],
    target: Annotated[
        str, option("--target", "CLASSES", "281 | 281,282 | top5 | all | class names | @COLUMN")
    ] = "top1",
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run that wrote DIR")] = False,
    verify_source: Annotated[
        bool, typer.Option("--verify-source", help="with --resume: read what was done again and compare")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read, count and estimate; write nothing")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="only the first so many images")] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="PNGs too, in DIR/overlays")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time")] = 8,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="images per output file")] = 1024,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="decoding processes; 0: a thread")] = None,
    timeout: Annotated[float, typer.Option("--decode-timeout", min=1, help="seconds that an image may take")] = 120,
    image_column: Annotated[str | None, option("--image-column", "NAME", ".csv, .parquet: the images")] = None,
    name_column: Annotated[str | None, option("--name-column", "NAME", ".parquet: their names")] = None,
) -> None:
    """Attribution maps of every image of SOURCE, in shards with an index; stopped runs go on with --resume."""
    from .. import batch as engine
    from ..batch import ray as distributed
    from ..report.command import note_command

    if sweep.layer and len(sweep.layer) > 1:
        raise InputError(f"--layer {' --layer '.join(sweep.layer)}: the shards of a run hold maps of one layer")
    cluster = machines.cluster()
    net, changes = files.load(), photos.changes()
    warn_of_preprocess(net, changes)
    method = sweep.of(net)
    settings: dict[str, Any] = {"target": target, "preprocess": changes, "labels": photos.names()}
    settings |= {"batch": batch, "shard_size": shard_size, "overlays": overlay, "resume": resume}
    settings |= {"image_column": image_column, "name_column": name_column, "limit": limit}
    settings |= {"workers": workers, "timeout": timeout, "verify_source": verify_source, **decoding.settings()}
    if dry_run:
        _estimate(source, method, out, settings)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's request to stop, like Ctrl-C
    try:
        with _Progress() as progress:
            if cluster is None:
                summary = engine.run(source, method, out, progress=progress.show, **settings)
            else:
                summary = distributed.run(source, method, out, cluster=cluster, progress=progress.show, **settings)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the finished shards are in {out}: the same command with --resume goes on", err=True)
        raise typer.Exit(130) from None
    note_command(out)
    _report(summary, out)


_TRIED = 16
"""Images of a dry run."""


def _estimate(source: Path, method: ExcitationBackprop, out: Path, settings: dict[str, Any]) -> None:
    """Lists the source, does the first images into a folder that goes again, and says what all of them would take."""
    import tempfile

    from .. import batch as engine
    from ..batch.running import target_column
    from ..batch.sources import open_source

    if not settings["resume"] and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; --resume goes on with the run that wrote it")
    columns = {"image": settings["image_column"], "name": settings["name_column"]}
    listed = open_source(source, **columns, target=target_column(settings["target"]), out=out)
    count = min(len(listed), settings["limit"] or len(listed))
    tried = {**settings, "limit": min(count, _TRIED), "resume": False, "verify_source": False}
    with tempfile.TemporaryDirectory() as folder:
        summary = engine.run(source, method, Path(folder) / "out", **tried)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    typer.echo(f"{source}: {count} images of kind {listed.kind}, {-(-count // settings['shard_size'])} shards")
    share = count / summary.images
    typer.echo(
        f"the first {summary.images} took {summary.seconds:.1f} s, {summary.failed} failed; all would take about "
        f"{summary.seconds * share / 60:.0f} min and {size * share / 1e6:.0f} MB, written to {out}"
    )


def _report(summary: Any, out: Path) -> None:
    rate = f", {summary.done / summary.seconds:.1f} a second" if summary.done and summary.seconds else ""
    before = summary.images - summary.done
    typer.echo(f"{out}: {summary.done} images{rate}" + (f"; {before} were there already" if before else ""))
    if summary.failed:
        failed = "1 image" if summary.failed == 1 else f"{summary.failed} images"
        typer.echo(f"{failed} failed: column 'error' of {out}/index says why", err=True)
    if summary.failed == summary.images:
        raise typer.Exit(1)


class _Progress:
    """Images done, rate and time left: a bar on a terminal, a line every half minute elsewhere."""

    def __enter__(self) -> _Progress:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._terminal = console.is_terminal
        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[rate]}"))
        self._bar = progress.Progress(*columns, progress.TimeRemainingColumn(), console=console, transient=True)
        self._bar.disable = not console.is_terminal
        self._task = self._bar.add_task("images", total=None, rate="")
        self._start, self._there, self._spoken = time.monotonic(), -1, 0.0
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def show(self, done: int, total: int, failed: int) -> None:
        """Told after every group."""
        if self._there < 0:
            self._start, self._there = time.monotonic(), done
        seconds = time.monotonic() - self._start
        rate = (done - self._there) / seconds if seconds > 0 else 0.0
        words = f"{rate:.1f}/s" + (f", {failed} failed" if failed else "")
        self._bar.update(self._task, completed=done, total=total, rate=words)
        if not self._terminal and seconds - self._spoken >= _SPOKEN:
            self._spoken = seconds
            left = f"{(total - done) / rate / 60:.0f} min left" if rate else ""
            typer.echo(f"{done} of {total} images, {words}, {left}", err=True)
