"""The command export: attribution as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .app import app
from .grouping import grouped
from .options import Files, Sweep, option


@app.command()
@grouped
def export(
    files: Files,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="MAPS.onnx")],
    sweep: Sweep,
    classes: Annotated[int, typer.Option("--classes", min=1, help="classes of each image in one call")] = 1,
    shape: Annotated[str | None, option("--shape", "SHAPE", "N,C,H,W, where the model leaves sizes open")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="a fixed number of images; else any")] = None,
) -> None:
    """Write forward pass and sweep as one ONNX graph of standard operators, with the class as an input."""
    from ..export import export_onnx
    from ..files import check_writable

    check_writable(out)
    parts = None if shape is None else shape.split(",")
    if parts is not None and not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--shape {shape!r}: wanted N,C,H,W, such as 1,3,224,224")
    sizes = None if parts is None else [int(part) for part in parts]
    export_onnx(sweep.of(files.load()), out, classes=classes, shape=sizes, batch=batch)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
