"""Output files that are either whole or absent; input files that are regular, and whose faults are named."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import EBPError, InputError

_NAME_BYTES = 255 - len("..12345678.parquet")
"""Bytes of a file's name that fit into one with a dot before it, a random part and a suffix behind it."""


def check_writable(path: str | Path) -> Path:
    """`path`, if a file could be written there now; for calling before a long computation whose result goes there.

    Raises:
        InputError: no such folder, a folder itself, no permission.
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


_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file (`git lfs pull` fetches that)",
    b"\x1f\x8b": "a gzip archive (.gz); unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"PK\x03\x04": "a zip archive, or what torch.save writes",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<script")


def kind_of_content(head: bytes) -> str:
    """What a file is that somebody took for a model, by its first bytes: "an HTML page ...", "text" for other readable
    text, "" where they tell nothing."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return "an HTML page in place of the file (did its download want a click or a login?)"
    start = head[:512]
    readable = all(byte >= 32 or byte in b"\t\n\r" for byte in start)
    return "text" if start and readable and b"\x7f" not in start else ""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to `path` when the block ends well, removed when it raises.

    The temporary name keeps the suffix, because writers choose their format by it.

    Raises:
        InputError: the folder does not exist or cannot be written.
    """
    path = check_writable(path)
    # not tempfile.mkstemp: its files are readable by their owner only, whatever the umask says
    temporary = path.with_name(f".{cut_name(path.stem)}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def cut_name(name: str, limit: int = _NAME_BYTES) -> str:
    """The beginning of a file name that takes at most `limit` bytes, cut between two letters."""
    data = os.fsencode(name)[:limit]
    whole = data.decode("utf-8", "ignore")
    return whole if name.startswith(whole) else os.fsdecode(data)  # else there are bytes that are no UTF-8 in it


def open_regular(path: str | Path) -> BinaryIO:
    """A file opened for reading, if it is a regular one: to open a pipe or a device could wait for ever.

    Raises:
        InputError: no such file, or no regular one.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: not a regular file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def refused_unless_readable(path: object, problem: str) -> Iterator[None]:
    """Turns whatever a reader raises in the block into one InputError "PATH: PROBLEM: why".

    A file from outside can bring any exception out of a library that reads it: Pillow, NumPy, tarfile, zipfile, csv,
    json and Arrow were seen to raise fifteen kinds. Refusals of ebp_cuda pass as they are.
    """
    try:
        yield
    except EBPError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {problem}: {error.strerror or error}") from error
    except Exception as error:
        raise InputError(f"{path}: {problem}: {type(error).__name__}: {str(error)[:500]}") from error
