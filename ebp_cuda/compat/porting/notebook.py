"""A notebook: its code cells one after the other, everything else as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from .edits import Editor
from .python2 import is_python3
from .source import Report, is_other_language, port_text, without_magics

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def port_notebook(text: str, origin: str) -> Report:
    """The JSON of a notebook (format 3 or 4) with its code cells ported; outputs stay as they were.

    A cell that is neither Python 2 nor 3 stays as it is and is reported. Raises InputError for what is no notebook.
    """
    notebook = _read(text, origin)
    cells = list(_code_cells(notebook))
    sources = ["".join(cell[key]) for cell, key in cells]
    written = [source for source in sources if not is_other_language(source)]
    python2 = not all(is_python3(without_magics(source)[0]) for source in written)
    editor, report = Editor(), Report("", python2)
    for number, ((cell, key), source) in enumerate(zip(cells, sources, strict=True), start=1):
        counts = len(editor.changed), len(editor.left)
        if is_other_language(source):
            report.left.append(f"cell {number}: {source.splitlines()[0]}: no Python")
            continue
        try:
            ported = port_text(source, f"{origin}: cell {number}", editor, python2=python2, ipython=True)
        except InputError as error:
            report.left.append(f"cell {number}: {error}")
            continue
        cell[key] = ported.splitlines(keepends=True) if isinstance(cell[key], list) else ported
        report.changed += [f"cell {number}, line {p.line}: {p.text}" for p in editor.changed[counts[0] :]]
        report.left += [f"cell {number}, line {p.line}: {p.text}" for p in editor.left[counts[1] :]]
        if any(line.lstrip().startswith("!") for line in source.splitlines()):
            report.left.append(f"cell {number}: a shell command (!)")
    if python2:
        report.changed.insert(0, "Python 2 -> Python 3")
        notebook.setdefault("metadata", {})["kernelspec"] = dict(_KERNEL)
        notebook["metadata"].pop("language_info", None)
    report.text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return report


def _read(text: str, origin: str) -> dict[str, Any]:
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: no notebook: {error}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("metadata", {}), dict):
        raise InputError(f"{origin}: no notebook: wanted a JSON object with cells")
    return notebook


def _code_cells(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each code cell with the name of its source: format 4, or 3 with its worksheets."""
    sheets = notebook.get("worksheets", [])
    groups = [notebook.get("cells", []), *(sheet.get("cells", []) for sheet in sheets if isinstance(sheet, dict))]
    for cell in (cell for group in groups for cell in group):
        key = "source" if "source" in cell else "input"
        lines = cell.get(key)
        plain = isinstance(lines, str) or (isinstance(lines, list) and all(isinstance(line, str) for line in lines))
        if cell.get("cell_type") == "code" and plain:
            yield cell, key
