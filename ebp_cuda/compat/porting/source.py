"""One script: Python 2 to 3, then the edits, and a report of both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...errors import InputError
from .edits import Editor, Place
from .python2 import is_python3, to_python3

_MAGIC = re.compile(r"^(\s*)(!.*|(?<!\s)[%?].*|[\w., ()]+=\s*[%!].*|[\w.]+\?\??)$")
"""Lines that only IPython reads: %matplotlib inline, !ls, files = !ls, numpy.array?"""

_WHOLE_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun")
"""Magics of a whole cell behind whose line stands Python."""

_STAND_IN = "pass  # only IPython reads this: line {}"


@dataclass
class Report:
    """What became of a script or notebook. Lines are those of the text in Python 3; of a notebook, of one cell."""

    text: str
    python2: bool
    """Whether it was Python 2."""
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What has no sure translation, with the reason."""


def port_script(text: str, origin: str) -> Report:
    """A script's text made to run today. Raises InputError where it is neither Python 2 nor 3."""
    python2, editor = not is_python3(text), Editor()
    result = port_text(text, origin, editor, python2=python2, ipython=False)
    report = Report(result, python2, _listed(editor.changed), _listed(editor.left))
    if result != text and python2:
        report.changed.insert(0, "Python 2 -> Python 3")
    return report


def port_text(text: str, origin: str, editor: Editor, *, python2: bool, ipython: bool) -> str:
    """One text after the other of those that share their imports. Raises InputError.

    ipython: lines that only IPython reads are left as they are.
    """
    plain, magics = without_magics(text) if ipython else (text, list[str]())
    ported = to_python3(plain, origin, python2=python2)
    if not is_python3(ported):
        raise InputError(f"{origin}: not what Python 3 reads, even as Python 2")
    edited = editor.edited(ported, python2=python2)
    for index, line in enumerate(magics):
        edited = edited.replace(_STAND_IN.format(index), line, 1)
    return edited if text.endswith("\n") or not text else edited.removesuffix("\n")


def without_magics(text: str) -> tuple[str, list[str]]:
    """The text with a `pass` in place of each line that only IPython reads, and those lines."""
    lines = text.split("\n")
    magics: list[str] = []
    for number, line in enumerate(lines):
        match = _MAGIC.match(line)
        if match:
            lines[number] = match[1] + _STAND_IN.format(len(magics))
            magics.append(match[2])
    return "\n".join(lines), magics


def is_other_language(cell: str) -> bool:
    """Whether a cell's magic says that it is a shell's, or HTML."""
    return cell.startswith("%%") and not cell.startswith(_WHOLE_CELLS)


def _listed(places: list[Place]) -> list[str]:
    return [f"line {place.line}: {place.text}" for place in sorted(places, key=lambda place: place.line)]
