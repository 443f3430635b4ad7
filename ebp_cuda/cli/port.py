"""The command port: a script or notebook of 2016, made to run today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files import atomic_path, check_writable
from .app import app
from .options import option


@app.command()
def port(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="a script.py or notebook.ipynb written for pycaffe")],
    out: Annotated[Path | None, option("--out", "FILE", "the new file; by default SCRIPT.ported.py or .ipynb")] = None,
) -> None:
    """Turn a pycaffe script of 2016 into one that runs today, and list what was changed and what was left.

    Python 2 becomes Python 3, `import caffe` becomes `from ebp_cuda import caffe`, names that SciPy, scikit-image and
    NumPy have dropped become those of today, divisions in indices are of integers. The script itself stays as it is.
    """
    from ..compat.porting import port_notebook, port_script

    target = script.with_suffix(f".ported{script.suffix}") if out is None else out
    check_writable(target)
    if target.resolve() == script.resolve():
        raise InputError(f"--out {target}: that is the script itself; wanted another file")
    try:
        text = script.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{script}: cannot be read: {error}") from None
    report = (port_notebook if script.suffix == ".ipynb" else port_script)(text, str(script))
    with atomic_path(target) as temporary:
        temporary.write_text(report.text, encoding="utf-8")
    for title, lines in (("changed", report.changed), ("left as it was", report.left)):
        typer.echo(f"{title}: {'nothing' if not lines else len(lines)}")
        for line in lines:
            typer.echo(f"  {line}")
    typer.echo(str(target))
