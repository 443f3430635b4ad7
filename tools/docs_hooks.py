"""Hooks of mkdocs (mkdocs.yml): writes the page of commands from the command line itself, and checks for lost pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MARK = "<!-- made: commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page, with what is made in the place of its mark."""
    return markdown.replace(MARK, "\n".join(command_pages())) if MARK in markdown else markdown


def on_nav(nav: Any, config: Any, files: Any) -> Any:
    """Refuses to build where a page is in no menu."""
    from mkdocs.exceptions import PluginError

    lost = [file.src_uri for file in files.documentation_pages() if file.page not in nav.pages]
    if lost:
        raise PluginError(f"pages without a link to them (add them to nav in mkdocs.yml): {', '.join(lost)}")
    return nav


def command_pages() -> Iterator[str]:
    """Markdown lines: a heading, the help and a table of options for each command."""
    import typer.main

    from ebp_cuda.cli import app

    yield from _command("ebp-cuda", typer.main.get_command(app), 2)


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    if level > 2 or not subcommands:
        yield f"{'#' * level} {name}\n"
    yield (command.help or "").replace("\f", "").strip() + "\n"
    options = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if options:
        yield "| option | default | |\n|---|---|---|"
        for parameter in options:
            yield _option(parameter)
        yield ""
    for subname, subcommand in sorted(subcommands.items()):
        if not subcommand.hidden:
            yield from _command(f"{name} {subname}", subcommand, min(level + 1, 4))


def _option(parameter: Any) -> str:
    names = parameter.opts + parameter.secondary_opts
    shown = " ".join(f"`{option}`" for option in names) if names[0].startswith("-") else f"`{names[0].upper()}`"
    default = "required" if parameter.required else ""
    if not parameter.required and isinstance(parameter.default, str | int | float) and parameter.default != "":
        default = f"`{parameter.default}`"
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", r"\|")
    return f"| {shown} | {default} | {text} |"
