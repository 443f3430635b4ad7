"""What comes in: bodies of bounded size and time, and questions out of a query."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote, urlsplit

from fastapi import Request

from .limits import Limits, Refused
from .model import METHODS, Question


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, if it is neither empty nor too large nor too slow. Raises Refused."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    try:
        body = await asyncio.wait_for(_collect(request, limits), limits.upload_seconds)
    except asyncio.TimeoutError:
        raise Refused(408, f"The upload took more than {limits.upload_seconds:g} seconds.") from None
    if not body:
        raise Refused(400, "The file is empty. Send a photo as the body of the request.")
    return body


async def _collect(request: Request, limits: Limits) -> bytes:
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > limits.max_bytes:
            raise _too_large(limits)
    return bytes(parts)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"The file is larger than {limits.max_bytes / 2**20:g} MiB, the most that is taken here.")


def file_name(request: Request) -> str:
    """What the browser calls the uploaded file, for messages; it is never opened."""
    name = unquote(request.headers.get("x-file-name", "the photo"))
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:100]


def question(class_index: int, layer: int, method: str, against: int | None) -> Question:
    """A question out of a query. Raises Refused (400)."""
    for known in METHODS:
        if known == method:
            return Question(class_index, layer, known, against)
    raise Refused(400, f"There is no method '{method[:40]}'. There are {', '.join(METHODS)}.")


def check_origin(request: Request) -> None:
    """Refuses what a page of another server asks for by way of this browser."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refused(403, "Requests from pages of other servers are refused.")
