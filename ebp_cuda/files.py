"""Output files that are either whole or absent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def check_writable(path: str | Path) -> Path:
    """`path`, if a file could be written there now. Raises InputError: no such folder, a folder itself, no permission.

    For calling before a long computation whose result goes to `path`.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; a file name was wanted")
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to `path` when the block ends well, removed when it raises.

    The temporary name keeps the suffix, because writers choose their format by it.
    Raises InputError where the folder does not exist or cannot be written.
    """
    path = check_writable(path)
    # not tempfile.mkstemp: its files are readable by their owner only, whatever the umask says
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
