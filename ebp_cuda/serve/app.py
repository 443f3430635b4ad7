"""The server: the page, the explorer's questions, and `POST /attribute` for programs.

    GET  /                                    the page; /page.js, /page.css
    GET  /api/model                           layers, classes, methods, samples
    POST /api/photos                          a photo as the body -> its name here, size and top classes
    POST /api/samples/NAME                    the same for a photo that comes along
    GET  /api/photos/ID/picture               the photo as it is shown
    GET  /api/photos/ID/map?class=&layer=&method=&against=      numbers; /map.npy, /map.npz, /map.png the files
    GET  /api/photos/ID/classes-at?layer=&row=&column=          which classes have their attention there
    POST /attribute?target=top1               a photo as the body -> maps, scores; computed in batches

No path of this machine can be asked for: photos come in as bytes and are known by random names. Whatever is refused is
a JSON {"error": "a sentence"}.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any, TypeVar

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..errors import EBPError, is_out_of_memory
from ..images.photo import Decoding, open_photo
from ..images.preprocess import prepare
from ..targets import parse_targets
from . import answers, samples
from .batching import Batcher
from .limits import Limits, Refused, Turns
from .model import Forwarded, Map, Model, Question
from .photos import Photos
from .requests import check_origin, file_name, question, read_body

Result = TypeVar("Result")

_TOP = 12
"""Classes that are listed of a photo, and of a place."""
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}

ClassIndex = Annotated[int, Query(alias="class")]


class Server:
    """What the routes share."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.photos, self.turns = Photos(limits.photos), Turns(limits.at_once, limits.waiting)
        self.batcher = Batcher(model.method, limits)

    async def compute(self, work: Callable[[], Result]) -> Result:
        """Runs work in a thread when its turn comes."""

        def in_turn() -> Result:
            with self.turns.turn(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a browser does not see them; mass left is in the answer
                return work()

        return await run_in_threadpool(in_turn)

    def asked(self, key: str, ask: Question) -> tuple[Forwarded, Map]:
        """A photo and the answer to a question about it."""
        photo = self.photos.get(key)
        return photo, self.model.answer(photo, ask)


def create_app(
    model: Model, limits: Limits | None = None, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
) -> FastAPI:
    """The application. hosts: names by which it may be called, so that no other name leads a browser here."""
    server = Server(model, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(server.batcher.close)

    app = FastAPI(title="ebp_cuda", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _add_refusals(app, model)
    _add_pages(app)
    _add_photos(app, server)
    _add_questions(app, server)
    _add_attribute(app, server)
    return app


def _add_refusals(app: FastAPI, model: Model) -> None:
    """Every refusal as a sentence, and what browsers are told of every answer."""

    def sentence(status: int, text: str) -> JSONResponse:
        return JSONResponse({"error": " ".join(text.split())}, status, headers=_SAFE)

    @app.middleware("http")
    async def guard(request: Request, call: Any) -> Response:
        try:
            check_origin(request)
        except Refused as refused:
            return sentence(refused.status, str(refused))
        response: Response = await call(request)
        response.headers.update(_SAFE)
        return response

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return sentence(error.status, str(error))

    @app.exception_handler(EBPError)
    async def input_error(_: Request, error: EBPError) -> Response:
        return sentence(400, str(error).replace(model.net.graph.origin, model.title))  # no folder of this machine

    @app.exception_handler(RequestValidationError)
    async def bad_query(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return sentence(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> Response:
        words = {404: "There is no such page.", 405: "This page is not asked for in this way."}
        return sentence(error.status_code, words.get(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        if is_out_of_memory(error):
            return sentence(507, "The photo takes more memory than there is. Try a smaller one.")
        return sentence(500, f"Something went wrong here that should not ({type(error).__name__}).")


def _add_pages(app: FastAPI) -> None:
    texts = {name: (resources.files(__package__) / "page" / name).read_bytes() for name in _PAGES}

    @app.get("/")
    async def index() -> Response:
        return Response(texts["index.html"], media_type=_PAGES["index.html"])

    @app.get("/page.js")
    async def script() -> Response:
        return Response(texts["page.js"], media_type=_PAGES["page.js"])

    @app.get("/page.css")
    async def style() -> Response:
        return Response(texts["page.css"], media_type=_PAGES["page.css"])


def _add_photos(app: FastAPI, server: Server) -> None:
    model = server.model

    @app.get("/api/model")
    async def describe() -> dict[str, Any]:
        layers = [{"name": one.layer, "plane": one.plane, "why": one.why, "good": one.good} for one in model.layers]
        names = [model.name_of(index) for index in range(model.classes)]
        return {
            "model": model.title,
            "rules": model.plan.rules,
            "contrast_layer": model.method.contrast_layer,
            "layers": layers,
            "layer": model.layer,
            "methods": model.methods,
            "classes": names,
            "samples": samples.names(),
            "max_bytes": server.limits.max_bytes,
        }

    async def keep(name: str, data: bytes) -> dict[str, Any]:
        photo = await server.compute(lambda: model.forward(name, data, server.limits.max_pixels))
        share = photo.scores.softmax(0)
        best = photo.scores.topk(min(_TOP, len(photo.scores))).indices.tolist()
        top = [_class_row(model, photo, index) | {"share": float(share[index])} for index in best]
        height, width = photo.picture.shape[:2]
        size = {"width": width, "height": height}
        return {"id": server.photos.add(photo), "name": photo.name, **size, "top": top}

    @app.post("/api/photos")
    async def upload(request: Request) -> dict[str, Any]:
        return await keep(file_name(request), await read_body(request, server.limits))

    @app.post("/api/samples/{name}")
    async def sample(name: str) -> dict[str, Any]:
        if name not in samples.names():
            raise Refused(404, "There is no such sample.")
        return await keep(name, await run_in_threadpool(samples.encoded, name))

    @app.get("/api/photos/{key}/picture")
    async def picture(key: str) -> Response:
        photo = server.photos.get(key)
        return Response(await run_in_threadpool(answers.jpeg, photo.picture), media_type="image/jpeg")


def _class_row(model: Model, photo: Forwarded, index: int) -> dict[str, Any]:
    return {"class": index, "name": model.name_of(index), "score": float(photo.scores[index])}


def _add_questions(app: FastAPI, server: Server) -> None:
    model = server.model

    @app.get("/api/photos/{key}/map")
    async def numbers(
        key: str, class_index: ClassIndex, layer: int, method: str = "c-mwp", against: int | None = None
    ) -> dict[str, Any]:
        ask = question(class_index, layer, method, against)
        photo, answer = await server.compute(lambda: server.asked(key, ask))
        row = _class_row(model, photo, class_index)
        return {
            **answers.array(answer.values),
            **row,
            "mass_left": answer.mass_left,
            "made_by": answers.words(model, ask),
        }

    @app.get("/api/photos/{key}/map.{kind}")
    async def file(
        key: str, kind: str, class_index: ClassIndex, layer: int, method: str = "c-mwp", against: int | None = None
    ) -> Response:
        ask = question(class_index, layer, method, against)

        def work() -> tuple[bytes, str]:
            photo, answer = server.asked(key, ask)
            if kind == "npy":
                return answers.npy(answer), "application/octet-stream"
            if kind == "npz":
                return answers.npz(model, photo, ask, answer), "application/octet-stream"
            if kind == "png":
                return answers.png(photo, answer), "image/png"
            raise Refused(404, "A map is there as .npy, .npz and .png.")

        content, media = await server.compute(work)
        name = f"map_{class_index}_{ask.method}.{kind}"
        return Response(content, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @app.get("/api/photos/{key}/classes-at")
    async def classes_at(key: str, layer: int, row: int, column: int) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            photo = server.photos.get(key)
            ranked = model.classes_at(photo, layer, row, column)
            firsts = zip(ranked.classes[0], ranked.share[0], ranked.lift[0], strict=True)
            rows = [
                _class_row(model, photo, int(index)) | {"share": float(share), "lift": float(lift)}
                for (index, share, lift), _ in zip(firsts, range(_TOP), strict=False)
            ]
            return {"row": row, "column": column, "classes": rows}

        return await server.compute(work)


def _add_attribute(app: FastAPI, server: Server) -> None:
    model, limits = server.model, server.limits

    def prepared(name: str, data: bytes, target: str) -> tuple[torch.Tensor, torch.Tensor | str]:
        photo = open_photo(name, data, decoding=Decoding(limits.max_pixels), size_wanted=model.how.size_of)
        chosen = parse_targets(target, model.labels or None, model.classes)
        count = int(chosen.removeprefix("top")) if isinstance(chosen, str) else len(chosen)
        if count > limits.classes:
            raise Refused(400, f"{count} classes were asked for. At most {limits.classes} are mapped in one request.")
        return prepare(photo, model.how), chosen if isinstance(chosen, str) else torch.tensor([chosen])

    @app.post("/attribute")
    async def attribute(request: Request, target: str = "top1") -> dict[str, Any]:
        """Maps of the photo in the body for a target as of `ebp-cuda attribute`: top5, 281,282, names."""
        data = await read_body(request, limits)
        x, targets = await server.compute(lambda: prepared(file_name(request), data, target))
        answer = asyncio.wrap_future(server.batcher.submit(x, targets))
        try:
            result = await asyncio.wait_for(answer, limits.answer_seconds)
        except asyncio.TimeoutError:
            raise Refused(
                503, f"There was no answer within {limits.answer_seconds:g} seconds. Try again later."
            ) from None
        indices = result.targets[0].tolist()
        return {
            "classes": [{"class": index, "name": model.name_of(index)} for index in indices],
            "scores": [float(result.scores[0, index]) for index in indices],
            "mass_left": result.mass_left[0].tolist(),
            "maps": answers.array(result.maps[0].float().cpu().numpy()),
            "layer": model.method.layer,
            "contrast_layer": model.method.contrast_layer,
            "rules": model.plan.rules,
        }
