"""A local HTTP server that serves one file as badly as a test wants."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 2048  # 512 KiB
FILE = "tiny.caffemodel"


class Server:
    """Answers every request with `answer(handler, number)`; `ranges` are the Range headers seen."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler, int], None] = serve
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                self.close_connection = True
                outer.answer(self, len(outer.ranges))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/{FILE}"
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()


def serve(
    handler: BaseHTTPRequestHandler,
    number: int,
    *,
    content: bytes = CONTENT,
    stop_after: int | None = None,
    ranges: bool = True,
    etag: str | None = '"v1"',
    kind: str = "application/octet-stream",
) -> None:
    """A well-behaved answer, but for `stop_after` bytes of body before the connection closes."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if ranges else None
    if asked and handler.headers.get("If-Range") not in (None, etag):
        asked = None
    start = int(asked[1]) if asked else 0
    if start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if asked else 200)
    if asked:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    if etag:
        handler.send_header("ETag", etag)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    body = content[start:]
    handler.wfile.write(body if stop_after is None else body[:stop_after])


def status(code: int) -> Callable[[BaseHTTPRequestHandler, int], None]:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
