"""One request over http or https whose head has to arrive in time, and that leads nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


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
