"""Download one file: resume what broke off, check size and hash, and only then give the file its name.

While it runs, the bytes are in FILE.part and, where the server named one, the version they belong to is in
FILE.part.json. Both survive a broken connection, a full disk or Ctrl-C, and the next call goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TaskID

from ..errors import ModelError

_CHUNK = 1 << 18
_LONGEST_PAUSE = 8.0
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Broken(Exception):
    """The connection failed; the same address may work a moment later."""


class _Refused(Exception):
    """This address will not serve the file; asking again is no use."""


@dataclass(frozen=True)
class Retry:
    """timeout: seconds without a byte after which a connection counts as broken. attempts: tries in a row that
    brought nothing new before an address is given up. backoff: seconds before the second try, doubled for each
    further one up to 8."""

    timeout: float = 30.0
    attempts: int = 5
    backoff: float = 0.5


def download(
    target: Path,
    urls: Sequence[str],
    *,
    size: int | None,
    hashes: Mapping[str, str],
    bar: Progress,
    retry: Retry,
) -> None:
    """Write `target` from the first of `urls` that serves the file of this size and these hashes (hashlib name -> hex).

    Raises ModelError: no address served the file, or no room on the disk. Bytes with a wrong size or hash are
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
        except (_Broken, _Refused) as error:
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
    """Bring the part file to its full length, resuming after breaks; raises _Broken, _Refused or OSError."""
    task = bar.add_task(part.target.name, total=part.size, completed=part.length)
    furthest, failed = part.length, 0
    try:
        while True:
            try:
                part.download(bar, task, retry.timeout)
                return
            except _Broken as error:
                failed = 1 if part.length > furthest else failed + 1
                furthest = max(furthest, part.length)
                if failed >= retry.attempts:
                    raise _Broken(
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
        self.validator = noted.get("validator") if noted.get("url") == url else None
        # bytes of another address, or of an unknown version, may be continued only where the hash tells in the end
        if not verifiable and self.validator is None:
            self.discard()

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _read_note(self) -> dict[str, str]:
        try:
            noted = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator = None

    def finish(self) -> None:
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def download(self, bar: Progress, task: TaskID, timeout: float) -> None:
        """One request; returns when the file is complete."""
        start = self.length
        if self.size is not None and start >= self.size:
            return  # complete, or too long: the check that follows tells
        response = self._open(start, timeout)
        if response is None:
            return
        with contextlib.closing(response):
            total = self._accept(response, start)
            resumed = response.status == 206
            self._reserve(total, start if resumed else 0)
            bar.update(task, total=total, completed=start if resumed else 0)
            with open(self.path, "ab" if resumed else "wb") as file:
                while chunk := self._read(response):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
        if total is not None and self.length < total:
            raise _Broken(f"connection closed after {self.length} of {total} bytes")

    def _open(self, start: int, timeout: float) -> http.client.HTTPResponse | None:
        """The response, or None where the server says that the bytes we have are all there are."""
        headers = {"User-Agent": "ebp-cuda", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and start:
                if error.headers.get("Content-Range", "").endswith(f"/{start}"):
                    return None
                self.discard()
                raise _Broken(f"the server cannot continue at byte {start}") from error
            kind = _Broken if error.code in _TRANSIENT_STATUS else _Refused
            raise kind(f"HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise (_Refused if _is_final(error.reason) else _Broken)(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"{type(error).__name__}: {error}") from error
        except ValueError as error:
            raise _Refused(f"not an address: {error}") from error

    def _accept(self, response: http.client.HTTPResponse, start: int) -> int | None:
        """Total size that the response announces (None if it does not), after checking that it is our file."""
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _Refused("answered with a web page, not with the file")
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
            if not span or int(span[1]) != start:
                self.discard()
                raise _Broken(f"asked for bytes from {start}, got '{response.headers.get('Content-Range')}'")
            total = None if span[2] == "*" else int(span[2])
        else:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        if self.size is not None and total not in (None, self.size):
            raise _Refused(f"the server offers {total} bytes, the published file has {self.size}")
        self._note_version(response)
        return self.size if total is None else total

    def _note_version(self, response: http.client.HTTPResponse) -> None:
        etag = response.headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if self.validator:
            self.note.write_text(json.dumps({"url": self.url, "validator": self.validator}), encoding="utf-8")
        else:
            self.note.unlink(missing_ok=True)

    def _reserve(self, total: int | None, done: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - done > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"after {self.length} bytes: {type(error).__name__}: {error}") from error


def _is_final(reason: object) -> bool:
    """Whether a connection that was never made would fail the next moment too: unknown host, bad certificate."""
    unknown_host = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME
    return unknown_host or isinstance(reason, ssl.SSLCertVerificationError)


def digests(path: Path, algorithms: Sequence[str]) -> dict[str, str]:
    """hashlib name -> hex digest of the file's bytes."""
    hashers = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            for hasher in hashers.values():
                hasher.update(chunk)
    return {algorithm: hasher.hexdigest() for algorithm, hasher in hashers.items()}


def check_file(path: Path, size: int | None, hashes: Mapping[str, str]) -> str:
    """What is wrong with a complete file: an empty string, or got and wanted."""
    got = path.stat().st_size
    if size is not None and got != size:
        return f"{got} bytes, wanted {size}"
    found = digests(path, list(hashes))
    for algorithm, wanted in hashes.items():
        if found[algorithm] != wanted:
            return f"{algorithm} {found[algorithm]}, wanted {wanted}"
    return ""
