"""The report as HTML: one file, or above `EMBEDDED` images a file with a folder of thumbnails beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic_path, check_writable
from .pictures import embedded, thumbnails, write_thumbnail
from .run import Run, open_run
from .sheets import Sheet, histograms, sheets, summary

EMBEDDED = 200
"""Images whose thumbnails go into the page itself."""
_DRAWN_ROWS = 20_000
"""Rows with a thumbnail; of longer tables only those of the sheets have one."""
_LARGEST_PICTURE = 8 << 20


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    folder: Path | None
    """The thumbnails, where they are not in the page."""
    rows: int
    images: int
    failures: int


def write_report(run: str | Path, out: str | Path | None = None) -> Report:
    """Writes a page about the run in a folder.

    Args:
        run: the folder of `ebp-cuda batch` or `ebp-cuda eval`.
        out: the page; by default report.html in that folder.

    Raises:
        InputError: no such run, a damaged file of it, or the page cannot be written.
        UnsupportedError: pyarrow is missing.
    """
    shown = open_run(run)
    page = check_writable(Path(out) if out is not None else shown.folder / "report.html")
    chosen = sheets(shown)
    folder = page.with_name(f"{page.stem}_files") if shown.places and shown.images > EMBEDDED else None
    pictures = _pictures(shown, chosen, folder)
    text = _render(shown, chosen, pictures, folder.name if folder is not None else "")
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return Report(page, folder, len(shown.rows), shown.images, len(shown.failures))


def _pictures(run: Run, chosen: Sequence[Sheet], folder: Path | None) -> dict[int, str]:
    """The address of a thumbnail by row: a data URI, or a file in `folder`."""
    if not run.places:
        return {}
    numbers: Sequence[int] = range(len(run.rows))
    if len(run.rows) > _DRAWN_ROWS:
        numbers = sorted({number for sheet in chosen for number in sheet.rows})
    if folder is None:
        return {number: embedded(jpeg) for number, jpeg in thumbnails(run, numbers)}
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    for number, jpeg in thumbnails(run, numbers):
        write_thumbnail(jpeg, folder / f"{number}.jpg")
    return dict.fromkeys(numbers, "")  # the page makes the address from the row's number


def _render(run: Run, chosen: Sequence[Sheet], pictures: dict[int, str], folder: str) -> str:
    # A batch of 200 images has up to 1000 rows whose thumbnails the table and the sheets share: they are in the page
    # once, as data, and the script puts them where they are shown.
    script, style = _part("report.js"), _part("report.css")
    data = {
        "columns": [{"name": name, "numeric": name in run.numbers} for name in run.columns],
        "rows": [[_plain(row[name]) for name in run.columns] for row in run.rows],
        "sheets": [{"title": sheet.title, "rows": sheet.rows} for sheet in chosen],
        "folder": folder,
        "pictures": {str(number): address for number, address in pictures.items()},
    }
    return _template().render(
        run=run,
        title=f"Report of {run.folder.resolve().name}",
        script=script,
        script_hash=_hash(script),
        style=style,
        data=script_json(data),
        histograms=histograms(run),
        summary=summary(run) if run.kind == "evaluation" else [],
        own_pictures=_own_pictures(run),
    )


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: it holds no "<", so that no text of it ends the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """A value of the table as JSON knows it; numbers that are not finite become words, other things their text."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else json.dumps(value, default=str)


def _own_pictures(run: Run) -> list[tuple[str, str]]:
    """The figures that an evaluation drew into its folder, as data URIs by name."""
    if run.kind == "batch":
        return []
    paths = [path for path in sorted(run.folder.glob("*.png")) if path.stat().st_size <= _LARGEST_PICTURE]
    return [(path.stem, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}") for path in paths]


def _hash(script: str) -> str:
    """How the page's policy names the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _part(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("report.html"))
