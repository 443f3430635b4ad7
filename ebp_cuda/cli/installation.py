"""Commands about the installation: doctor, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .options import option


@app.command()
def doctor() -> None:
    """Versions, build, GPU, and a small self check; exit code 1 where something is wrong."""
    from .doctor import run

    raise typer.Exit(0 if run() else 1)


@app.command()
def demo(
    out: Annotated[Path, option("--out", "DIR", "where the pictures go")] = Path("demo"),
) -> None:
    """Attention maps of a trained ImageNet network and of a Caffe model, on photos that ship with scikit-image."""
    from .demo import run

    run(out)
