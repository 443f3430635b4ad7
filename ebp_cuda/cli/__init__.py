"""The command line `ebp-cuda`: a module per group of commands.

Every refusal (EBPError) is one line "error: ..." on stderr and exit code 2; `--debug`, anywhere on the line,
shows its traceback. Matplotlib, importers and the like are imported by the commands that need them.
"""

from __future__ import annotations

import sys
import traceback

from ..errors import EBPError
from . import (  # noqa: F401  each registers its commands
    attribute,
    batch,
    bench,
    classes_at,
    evaluate,
    export,
    faithfulness,
    grid,
    installation,
    models,
    port,
    report,
    serve,
)
from .app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of `ebp-cuda` and `python -m ebp_cuda`."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="ebp-cuda")
    except EBPError as error:
        if debug:
            traceback.print_exc()
        else:
            print("error: " + " ".join(line.strip() for line in str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None
