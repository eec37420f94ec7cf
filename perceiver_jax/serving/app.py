"""The routes of a server."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection
import contextlib
import json
import logging
import mimetypes
import pathlib
from typing import Any

import fastapi
from fastapi import responses

import perceiver_jax
from perceiver_jax import config
from perceiver_jax.serving import about, batching, decoding, documentation, guard, metrics, service
from perceiver_jax.serving import parameters as parameters_lib

_LOGGER = logging.getLogger(__name__)
_PAGE = pathlib.Path(__file__).parent / "page"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_BUSY = (batching.ExpiredError, batching.StoppedError)


def build_app(
    served: service.Service,
    demo: bool = False,
    on_warm: Callable[[BaseException | None], None] = lambda error: None,
    hosts: Collection[str] | None = None,
) -> guard.Guard:
    """Returns the ASGI application; it warms the model up when it starts, and ends it at its end.

    Args:
        served: the model.
        demo: whether the page is served, too.
        on_warm: called when it is warm, or with why it can't be.
        hosts: names that requests may have in their header Host; None: any.
    """
    run = served.run
    examples = about.read_examples(run.workdir)
    described = about.describe(run, served.limits, list(examples))
    app = fastapi.FastAPI(
        title=f"perceiver_jax: {run.workdir.name}",
        description=f"Predicts {run.task.description}.",
        version=perceiver_jax.__version__,
        docs_url=None,  # It loads scripts of other servers; ours is `documentation.page`.
        redoc_url=None,
        redirect_slashes=False,  # To wherever the header Host says.
        lifespan=lambda app: _lifespan(served, on_warm),
    )
    for kind in (config.UserError, decoding.RefusedError, decoding.BrokenError, *_BUSY):
        app.add_exception_handler(kind, _on_error)
    _add_answers(app, served, described)
    _add_state(app, served, described)
    if demo:
        _add_files(app, examples)
    paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    return guard.Guard(app, served.limits, served.metrics, lambda: served.state, paths, hosts)


def _add_answers(app: fastapi.FastAPI, served: service.Service, described: dict[str, Any]) -> None:
    parameters = parameters_lib.Parameters(served.run, described)

    def post(path: str) -> Callable[[Callable], Callable]:
        # FastAPI reads no parameters: what it says of wrong ones is a list, not a sentence.
        extra = documentation.body(described) | {"parameters": parameters.documented(path)}
        return app.post(path, openapi_extra=extra, responses=documentation.answers(path))

    def options(request: fastapi.Request) -> dict[str, Any]:
        return parameters.read(request.scope["path"], request.query_params.multi_items())

    @post("/predict")
    async def predict(request: fastapi.Request) -> fastapi.Response:
        """What each example is, by name of the output: what `Run.predict` answers."""
        given = options(request)
        return _json({"predictions": await served.predict(*await _content(request), **given)})

    @post("/attention")
    async def attention(request: fastapi.Request) -> fastapi.Response:
        """What a cross-attend looks at in one example: pictures, PNG files in base64."""
        given = options(request)
        picture = given.pop("picture")
        found = await served.look(*await _content(request), **given)
        if picture is None:
            return _json(found)
        if picture >= (count := len(found["pictures"])):
            raise decoding.RefusedError(f"picture is {picture}; expected less than {count}.")
        png = base64.b64decode(found["pictures"][picture]["png"])
        return responses.Response(png, media_type="image/png")

    @post("/over_time")
    async def over_time(request: fastapi.Request) -> fastapi.Response:
        """What the latents make of one recording over time: probabilities of classes."""
        options(request)  # There are none.
        return _json(await served.over_time(*await _content(request)))


def _add_state(app: fastapi.FastAPI, served: service.Service, described: dict[str, Any]) -> None:
    @app.get("/model")
    async def model() -> fastapi.Response:
        """What the model takes and gives."""
        return _json(described)

    @app.get("/health")
    async def health() -> fastapi.Response:
        """200 when requests are taken, else 503."""
        return _json({"state": served.state}, 200 if served.state == "ready" else 503)

    @app.get("/metrics")
    async def measured() -> fastapi.Response:
        """Counters and times, for Prometheus."""
        return responses.Response(served.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> fastapi.Response:
        headers = {"content-security-policy": documentation.POLICY}
        return responses.HTMLResponse(documentation.page(app.openapi()), headers=headers)


def _add_files(app: fastapi.FastAPI, examples: dict[str, bytes]) -> None:
    """Serves the page and examples; of files that are read now, whatever a request names."""
    files = {path.name: path.read_bytes() for path in _PAGE.iterdir() if path.suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    async def index() -> fastapi.Response:
        return responses.Response(files["index.html"], media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> fastapi.Response:
        return _file(files, name)

    @app.get("/examples/{name}", include_in_schema=False)
    async def example(name: str) -> fastapi.Response:
        return _file(examples, name)


def _file(files: dict[str, bytes], name: str) -> fastapi.Response:
    if name not in files:
        return _json({"detail": "There is no such file."}, 404)
    suffix = pathlib.PurePath(name).suffix
    guessed = mimetypes.guess_type(name)[0]
    kind = _TYPES.get(suffix) or guessed or "application/octet-stream"
    return responses.Response(files[name], media_type=kind)


@contextlib.asynccontextmanager
async def _lifespan(
    served: service.Service, on_warm: Callable[[BaseException | None], None]
) -> AsyncIterator[None]:
    """Warms up beside what is asked meanwhile, and ends."""

    def warm_up() -> None:
        try:
            served.warm_up()
        except batching.StoppedError:
            return  # It ends before it was warm.
        except Exception as error:
            on_warm(error)
        else:
            on_warm(None)

    warming = asyncio.create_task(asyncio.to_thread(warm_up))
    yield
    await asyncio.to_thread(served.end)
    await warming


async def _content(request: fastapi.Request) -> tuple[str, bytes]:
    return request.headers.get("content-type", ""), await request.body()


async def _on_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    del request
    if isinstance(error, _BUSY):
        busy = {"detail": "There was no time for the request. Ask again."}
        return _json(busy, 503, {"retry-after": "1"})
    if isinstance(error, decoding.RefusedError):
        return _json({"detail": str(error)}, error.status)
    if isinstance(error, config.UserError):  # What is known when the model has answered.
        return _json({"detail": str(error)}, 422)
    _LOGGER.error("A request could not be read:\n%s", error)
    return _json({"detail": "The server failed to read it, by a bug. See its log."}, 500)


def _json(values: Any, status: int = 200, headers: dict[str, str] | None = None):
    content = json.dumps(values, allow_nan=False, separators=(",", ":"))
    kind = "application/json"
    return responses.Response(content, status, headers, media_type=kind)
