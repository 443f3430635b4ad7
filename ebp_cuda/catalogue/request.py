"""One request over http or https: its head has to arrive in time, its bytes fast enough, and it leads nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Broken(Exception):
    """The connection failed; the same address may work a moment later."""


class Refused(Exception):
    """This address will not serve the file; asking again is no use."""


@dataclass(frozen=True)
class Retry:
    """When a connection, and when an address, is given up."""

    timeout: float = 30.0
    """Seconds without a byte, or until the answer's head is there, after which a connection counts as broken."""
    attempts: int = 5
    """Tries in a row that brought nothing new before an address is given up."""
    backoff: float = 0.5
    """Seconds before the second try, doubled for each further one up to 8."""
    least_rate: float = 1000.0
    """Bytes a second, since the first try and after `timeout` seconds, below which an address is given up."""


class Pace:
    """Whether bytes come fast enough, over all tries of one address."""

    def __init__(self, length: int, retry: Retry) -> None:
        self._start, self._length, self._retry = time.monotonic(), length, retry
        self.timeout = retry.timeout

    def check(self, length: int) -> None:
        """Raises Refused where the part has grown to `length` only."""
        seconds = time.monotonic() - self._start
        rate = (length - self._length) / max(seconds, 1e-9)
        if seconds > self._retry.timeout and rate < self._retry.least_rate:
            raise Refused(f"{rate:.0f} bytes a second over {seconds:.0f} s, too slow to go on with")


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows a server to other servers, but not to files or other protocols."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError(f"sent on to {newurl[:100]!r}, which is no address of the web")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_request(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """The answer, its head read; a server that sends the head byte by byte is cut off after `timeout` seconds.

    The timeout of a socket counts from the last byte; so a timer shuts down whatever sockets the request has opened,
    also in the middle of an exchange of keys.

    Raises:
        OSError: what urllib raises of network and server, URLError among them.
        http.client.HTTPException: an answer that is none.
    """
    sockets: list[socket.socket] = []

    def connect(*arguments: Any, **options: Any) -> socket.socket:
        sockets.append(socket.create_connection(*arguments, **options))
        return sockets[-1]

    def cut_off() -> None:
        for opened in sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    opener = urllib.request.build_opener(_HttpOnly, *_handlers(connect))
    timer = threading.Timer(timeout, cut_off)
    timer.daemon = True
    timer.start()
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
        return response
    finally:
        timer.cancel()


def _handlers(connect: Callable[..., socket.socket]) -> tuple[urllib.request.BaseHandler, ...]:
    """urllib's handlers for http and https, whose connections are made by `connect`."""

    def making(kind: Any) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            connection = kind(*arguments, **options)
            connection._create_connection = connect  # what http.client has for that; there is no public name
            return connection

        return make

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(making(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(making(http.client.HTTPSConnection), req)

    return Http(), Https()
