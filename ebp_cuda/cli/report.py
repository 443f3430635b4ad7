"""The command report: a page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .options import option


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of `ebp-cuda batch` or `ebp-cuda eval`")],
    out: Annotated[Path | None, option("--out", "FILE.html", "the page; else RUN/report.html")] = None,
) -> None:
    """One HTML page about a run: distributions, contact sheets, failures, and a table to sort and filter."""
    from ..report import write_report

    written = write_report(run, out)
    failed = f", {written.failures} failed" if written.failures else ""
    typer.echo(f"{written.page}: {written.images} images, {written.rows} rows{failed}")
    if written.folder is not None:
        typer.echo(f"{written.folder}: thumbnails, which belong to the page")
