"""The `ebp-cuda` application that every command registers with, and its progress bar."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(
    name="ebp-cuda",
    help="Excitation Backprop: which parts of a photo speak for a class of a trained network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"ebp-cuda {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="show the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def progress_bar() -> Any:
    """A rich progress bar on stderr; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
