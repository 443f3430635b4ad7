"""A server of a model, run in this process on a free port for as long as a test needs it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

import ebp_cuda
from ebp_cuda.models import digits
from ebp_cuda.serve.app import create_app
from ebp_cuda.serve.limits import Limits
from ebp_cuda.serve.model import Model


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert self.status >= 400, self.body[:200]
        return self.json["error"]


@dataclass(frozen=True)
class Site:
    """A running server."""

    port: int
    app: Any

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


def digits_model() -> Model:
    """The digits network by its own layers."""
    net = digits.load()
    return Model(net, ebp_cuda.ExcitationBackprop(net, digits.LAYER, digits.CONTRAST_LAYER))


@cache
def scene(number: int = 0) -> bytes:
    """A scene of handwritten digits as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(list(digits.scenes.held_out_scenes(number + 1))[number].image).save(file, "PNG")
    return file.getvalue()


def array(answer: dict[str, Any]) -> np.ndarray:
    """The array of an answer."""
    return np.frombuffer(base64.b64decode(answer["float32"]), "<f4").reshape(answer["shape"])


@contextmanager
def serving(model: Model, limits: Limits | None = None) -> Iterator[Site]:
    """Runs a server until the block ends."""
    app = create_app(model, limits)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until and thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield Site(listening.getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
