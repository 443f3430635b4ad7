"""Download one file: resume what broke off, check size and hash, and only then give the file its name.

While it runs, the bytes are in FILE.part and, where the server named one, the version they belong to is in
FILE.part.json. Both survive a broken connection, a full disk or Ctrl-C, and the next call goes on from there.

Nothing that a server says is believed: no more bytes are taken than the file has, or than LIMIT where its size was not
published, a connection that brings too little is ended, and whatever else an answer does to the libraries that read it
is one error. Nothing that lies in the folder is followed: FILE.part is written to only as a regular file of one name.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.progress import Progress, TaskID

from ..errors import InputError, ModelError
from ..files import atomic_path, open_regular
from .checks import check_file
from .request import Broken, Pace, Refused, Retry, open_request

LIMIT = 4 << 30
"""Bytes that a file may have whose size was not published."""
_CHUNK = 1 << 18
_NOTE_BYTES = 1 << 16
_DIGITS = r"\d{1,18}"
_LONGEST_PAUSE = 8.0
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    target: Path,
    urls: Sequence[str],
    *,
    size: int | None,
    hashes: Mapping[str, str],
    bar: Progress,
    retry: Retry,
) -> None:
    """Writes `target` from the first of `urls` that serves the file.

    Args:
        target: where the file goes; FILE.part and FILE.part.json lie beside it meanwhile.
        urls: addresses, tried in this order.
        size: bytes of the published file, None where that was not published.
        hashes: hashlib name -> hex digest of the published file.
        bar: shows the bytes.
        retry: when a connection and an address are given up.

    Raises:
        ModelError: no address served the file, or there is no room on the disk. Bytes with a wrong size or hash are
            deleted; in every other case FILE.part stays for the next call.
    """
    failures = []
    kept = 0
    for url in urls:
        try:
            part = _Part(target, url, size, verifiable=bool(hashes))
            problem = _fill_and_check(part, hashes, bar, retry)
            if not problem:
                part.finish()
                return
            failures.append(f"{url}: not the published file, deleted ({problem})")
        except (Broken, Refused) as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            hint = "no room on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise ModelError(f"cannot write {target}.part: {hint}") from error
        kept = part.length
    waiting = f"; {kept} bytes wait in {target}.part" if kept else ""
    raise ModelError(f"could not fetch {target.name}: {'; '.join(failures)}{waiting}")


def _fill_and_check(part: _Part, hashes: Mapping[str, str], bar: Progress, retry: Retry) -> str:
    """What is wrong with the complete file, which is then deleted; an empty string for the right one."""
    while True:
        continued = part.length > 0
        _fill(part, bar, retry)
        problem = check_file(part.path, part.size, hashes)
        if not problem:
            return ""
        part.discard()
        if not continued:  # else the old bytes may have been the wrong ones: once more from the start
            return problem


def _fill(part: _Part, bar: Progress, retry: Retry) -> None:
    """Bring the part file to its full length, resuming after breaks; raises Broken, Refused or OSError."""
    task = bar.add_task(part.target.name, total=part.size, completed=part.length)
    furthest, failed = part.length, 0
    pace = Pace(part.length, retry)
    try:
        while True:
            try:
                part.download(bar, task, pace)
                return
            except Broken as error:
                pace.check(part.length)
                failed = 1 if part.length > furthest else failed + 1
                furthest = max(furthest, part.length)
                if failed >= retry.attempts:
                    raise Broken(
                        f"{error} (given up after {retry.attempts} tries in a row without a new byte)"
                    ) from error
                time.sleep(min(retry.backoff * 2 ** (failed - 1), _LONGEST_PAUSE))
    finally:
        bar.remove_task(task)


class _Part:
    """The growing FILE.part of one address, and the version of the file that its bytes belong to."""

    def __init__(self, target: Path, url: str, size: int | None, *, verifiable: bool) -> None:
        self.target, self.url, self.size = target, url, size
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        noted = self._read_note()
        self.validator: str | None = noted.get("validator") if noted.get("url") == url else None
        # bytes of another address, or of an unknown version, may be continued only where the hash tells in the end
        if not verifiable and self.validator is None:
            self.discard()

    @property
    def length(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0

    def _read_note(self) -> dict[str, str]:
        try:
            with open_regular(self.note) as file:
                noted = json.loads(file.read(_NOTE_BYTES))
        except (OSError, ValueError, RecursionError, InputError):
            return {}
        held = noted if isinstance(noted, dict) else {}
        return {key: value for key, value in held.items() if isinstance(value, str) and _is_header(value)}

    @contextlib.contextmanager
    def _opened(self, resumed: bool) -> Iterator[IO[bytes]]:
        """FILE.part for writing, from its end on or anew. Raises OSError where it is a link, or no file of its own."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self.path, flags | (os.O_APPEND if resumed else 0), 0o666), "wb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                raise OSError(errno.EPERM, "it is no file of its own; move it away")
            if not resumed:
                file.truncate()
            yield file

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator = None

    def finish(self) -> None:
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def download(self, bar: Progress, task: TaskID, pace: Pace) -> None:
        """One request; returns when the file is complete."""
        start = self.length
        if self.size is not None and start >= self.size:
            return  # complete, or too long: the check that follows tells
        response = self._open(start, pace.timeout)
        if response is None:
            return
        with contextlib.closing(response):
            total = self._accept(response, start)
            resumed = response.status == 206
            self._reserve(total, start if resumed else 0)
            bar.update(task, total=total, completed=start if resumed else 0)
            with self._opened(resumed) as file:
                self._copy(response, file, start if resumed else 0, LIMIT if total is None else total, bar, task, pace)
        if total is not None and self.length < total:
            raise Broken(f"connection closed after {self.length} of {total} bytes")

    def _copy(
        self, response: Any, file: IO[bytes], length: int, limit: int, bar: Progress, task: TaskID, pace: Pace
    ) -> None:
        """Writes what comes, to its end or to one byte more than `limit`, which no file of ours has."""
        while chunk := self._read(response):
            length += len(chunk)
            if length > limit:
                self.discard()
                raise Refused(f"sent more than the {limit} bytes of the file")
            file.write(chunk)
            bar.advance(task, len(chunk))
            pace.check(length)

    def _open(self, start: int, timeout: float) -> http.client.HTTPResponse | None:
        """The response, or None where the server says that the bytes we have are all there are."""
        headers = {"User-Agent": "ebp-cuda", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            request = urllib.request.Request(self.url, headers=headers)
            return open_request(request, timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and start:
                if str(error.headers.get("Content-Range", "")).endswith(f"/{start}"):
                    return None
                self.discard()
                raise Broken(f"the server cannot continue at byte {start}") from error
            kind = Broken if error.code in _TRANSIENT_STATUS else Refused
            raise kind(f"HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise (Refused if _is_final(error.reason) else Broken)(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        except ValueError as error:
            raise Refused(f"not an address, or sent on to one that is none: {error}") from error
        except Exception as error:  # an answer can bring anything out of the libraries that read it
            raise Refused(f"the answer cannot be read: {type(error).__name__}: {error}") from error

    def _accept(self, response: http.client.HTTPResponse, start: int) -> int | None:
        """Total size that the response announces (None if it does not), after checking that it is our file."""
        if "text/html" in response.headers.get("Content-Type", ""):
            raise Refused("answered with a web page, not with the file")
        if response.status == 206:
            announced = str(response.headers.get("Content-Range", "")).strip()
            span = re.fullmatch(rf"bytes ({_DIGITS})-{_DIGITS}/({_DIGITS}|\*)", announced, re.ASCII)
            if not span or int(span[1]) != start:
                self.discard()
                raise Broken(f"asked for bytes from {start}, got '{announced[:100]}'")
            total = None if span[2] == "*" else int(span[2])
        else:
            length = str(response.headers.get("Content-Length", ""))
            total = int(length) if re.fullmatch(_DIGITS, length, re.ASCII) else None
        if self.size is not None and total not in (None, self.size):
            raise Refused(f"the server offers {total} bytes, the published file has {self.size}")
        if total is not None and total > LIMIT:
            raise Refused(f"the server offers {total} bytes; a file without a published size may have {LIMIT}")
        self._note_version(response)
        return self.size if total is None else total

    def _note_version(self, response: http.client.HTTPResponse) -> None:
        etag = str(response.headers.get("ETag", ""))
        validator = etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))
        self.validator = validator if validator and _is_header(validator) else None
        if self.validator:
            with atomic_path(self.note) as temporary:
                temporary.write_text(json.dumps({"url": self.url, "validator": self.validator}), encoding="utf-8")
        else:
            self.note.unlink(missing_ok=True)

    def _reserve(self, total: int | None, done: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - done > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(_CHUNK)
        except Exception as error:
            raise Broken(f"after {self.length} bytes: {type(error).__name__}: {error}") from error


def _is_header(text: str) -> bool:
    """Whether a text may stand in a request as it is."""
    return text.isascii() and text.isprintable() and len(text) < 1000


def _is_final(reason: object) -> bool:
    """Whether a connection that was never made would fail the next moment too: unknown host, bad certificate."""
    unknown_host = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME
    return unknown_host or isinstance(reason, ssl.SSLCertVerificationError)
