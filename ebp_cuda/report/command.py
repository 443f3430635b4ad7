"""The line of the shell that made a run, kept beside it in command.txt."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from ..files import atomic_path, open_regular, refused_unless_readable

_FILE = "command.txt"
_LONGEST = 1 << 16


def note_command(folder: str | Path) -> None:
    """Writes the line that started this process into a run's folder, unless that of its first call stands there."""
    path = Path(folder) / _FILE
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(shlex.join(["ebp-cuda", *sys.argv[1:]]) + "\n", encoding="utf-8", errors="replace")


def command_of(folder: Path) -> str:
    """The line that made a run; "" where its folder does not say."""
    path = folder / _FILE
    if not path.exists():
        return ""
    with refused_unless_readable(path, "cannot be read"), open_regular(path) as file:
        return file.read(_LONGEST).decode("utf-8", "replace").strip()
