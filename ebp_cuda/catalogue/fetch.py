"""Fetch the published weights of a catalogue network (`ebp-cuda fetch NAME`)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from .. import models
from ..errors import InputError
from ..files import atomic_path
from .checks import check_file, digests
from .download import download
from .request import Retry


def fetch(
    name: str,
    folder: str | Path = ".",
    *,
    url: str | None = None,
    progress: bool = True,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: float = 0.5,
) -> Path:
    """Downloads a network's published .caffemodel and writes its deploy prototxt beside it, under the same stem.

    A file of that name that is already there is checked, not fetched again, and a prototxt that is already there is
    left alone.

    Args:
        name: one of `ebp_cuda.models.names()`.
        folder: where the files go, made if missing.
        url: an address to use in place of the published ones; the file is checked all the same.
        progress: show a bar and notes on stderr.
        timeout: see `ebp_cuda.catalogue.request.Retry`, as for the next two.
        attempts: tries in a row that bring nothing new.
        backoff: seconds before the second try.

    Returns:
        The path of the .caffemodel.

    Raises:
        InputError: an unknown name, another file of that name in the way, a folder that cannot be written, or an
            argument that cannot be used.
        ModelError: no address served the file, its size or hash is another, or there is no room on the disk.
    """
    weights = models.model(name).weights
    if url is not None and not re.match(r"https?://[^/]", url):
        raise InputError(f"fetch {name}: url '{url}' is not an http:// or https:// address")
    if timeout <= 0 or attempts < 1 or backoff < 0:
        raise InputError(
            f"fetch {name}: wanted timeout > 0, attempts >= 1, backoff >= 0; got {timeout}, {attempts}, {backoff}"
        )
    target = _make_folder(folder) / weights.file
    console = Console(stderr=True, quiet=not progress)
    if target.exists():
        _check_present(target, weights)
        console.print(f"{target} is there already")
    else:
        retry = Retry(timeout, attempts, backoff)
        with _progress_bar(console) as bar:
            download(
                target, [url] if url else weights.urls, size=weights.size, hashes=weights.hashes, bar=bar, retry=retry
            )
    if not weights.hashes:
        console.print(f"{name}: no hash was published; sha256 of this file is {digests(target, ['sha256'])['sha256']}")
    deploy = target.with_suffix(".prototxt")
    if not deploy.exists():
        with atomic_path(deploy) as path:
            path.write_text(models.prototxt(name), encoding="utf-8")
    return target


def _make_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"fetch: cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"fetch: no permission to write in {folder}")
    return folder


def _check_present(target: Path, weights: models.Weights) -> None:
    try:
        problem = check_file(target, weights.size, weights.hashes)
    except OSError as error:
        raise InputError(f"fetch: cannot read {target}: {error.strerror}") from error
    if problem:
        raise InputError(f"{target} is there but is not the published file ({problem}); move it away to fetch again")


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=console.quiet)
