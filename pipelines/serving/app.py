"""Endpoints: the open inference protocol (V2), uploads of files, and metrics."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.shared.errors import UserError
from components.shared.reading.scans import MIB
from pipelines.extras import DISTRIBUTION
from pipelines.serving import tensors, upload
from pipelines.serving.loaded import LoadedModel, ServedModel
from pipelines.serving.metrics import CONTENT_TYPE, Metrics
from pipelines.serving.settings import ServeSettings

VERSION_HEADER = "x-model-version"

_MODEL = "/v2/models/{name}"

Result = TypeVar("Result")
_Work = Callable[[Path, LoadedModel, ServeSettings], Result]


def build_app(served: ServedModel, settings: ServeSettings) -> ASGIApp:
    """Builds the server's application, which looks for new versions while it runs."""
    endpoints = _Endpoints(served, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(served, settings.poll_s))
        yield
        following.cancel()

    get = {
        "/v2": endpoints.server,
        "/v2/health/live": endpoints.live,
        "/v2/health/ready": endpoints.ready,
        "/metrics": endpoints.metrics,
    }
    of_model = {"": endpoints.model, "/ready": endpoints.ready_model}
    routes = [Route(path, endpoint) for path, endpoint in get.items()]
    for start in (_MODEL, f"{_MODEL}/versions/{{version}}"):
        routes += [Route(f"{start}{end}", endpoint) for end, endpoint in of_model.items()]
        routes.append(Route(f"{start}/infer", endpoints.infer, methods=["POST"]))
    routes.append(Route("/predict", endpoints.predict, methods=["POST"]))
    handlers = {HTTPException: _refuse, UserError: _refuse_user, Exception: _fail}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    return _Observed(app, endpoints)


async def _follow(served: ServedModel, poll_s: float) -> None:
    while True:
        await asyncio.sleep(poll_s)
        await run_in_threadpool(served.refresh)


class _Endpoints:
    def __init__(self, served: ServedModel, settings: ServeSettings) -> None:
        self.served, self.counters = served, Metrics()
        self._settings = settings
        self._uploads = 0
        self._computing = asyncio.Lock()  # the model uses all threads

    async def server(self, _: Request) -> Response:
        version = metadata.version(DISTRIBUTION)
        return JSONResponse({"name": DISTRIBUTION, "version": version, "extensions": []})

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        return JSONResponse({"ready": True})  # the model is loaded before the port is open

    async def model(self, request: Request) -> Response:
        return JSONResponse(tensors.describe_model(self._named(request)))

    async def ready_model(self, request: Request) -> Response:
        model = self._named(request)
        return JSONResponse({"name": model.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        self._named(request)
        answer, model = await self._work(request, tensors.infer)
        return Response(answer, headers=_version(model), media_type="application/json")

    async def predict(self, request: Request) -> Response:
        answer, model = await self._work(request, upload.predict_upload)
        name = answer.name.encode("ascii", "replace").decode().replace('"', "_")
        headers = {"content-disposition": f'attachment; filename="{name}"'} | _version(model)
        kind = "application/gzip" if name.endswith(".gz") else "image/tiff"
        return Response(answer.content, headers=headers, media_type=kind)

    async def metrics(self, _: Request) -> Response:
        now = self.served.current
        text = self.counters.text(self._uploads, self.served.swaps, now.name, now.version)
        return Response(text, media_type=CONTENT_TYPE)

    def _named(self, request: Request) -> LoadedModel:
        model, name = self.served.current, request.path_params["name"]
        version = request.path_params.get("version", model.version)
        if (name, version) != (model.name, model.version):
            raise HTTPException(
                404, f"this server has no such model, only {model.name} version {model.version}"
            )
        return model

    async def _work(self, request: Request, work: _Work[Result]) -> tuple[Result, LoadedModel]:
        if self._uploads >= self._settings.max_requests:
            raise HTTPException(
                429,
                f"the server has {self._uploads} requests, the most that it takes; try again later",
                headers={"retry-after": "5"},
            )
        self._uploads += 1
        try:
            with TemporaryDirectory(prefix="brainseg-upload-") as folder:
                path = Path(folder, "upload")
                await self._receive(request, path)
                async with self._computing:
                    model = self.served.current
                    # a thread cannot be stopped: without the shield the next would run beside it
                    job = asyncio.ensure_future(
                        run_in_threadpool(work, path, model, self._settings)
                    )
                    return await _to_its_end(job), model
        finally:
            self._uploads -= 1

    async def _receive(self, request: Request, path: Path) -> None:
        most = int(self._settings.max_body_mib * MIB)
        declared = request.headers.get("content-length", "")
        received = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        if received > most:
            raise self._too_large()
        received = 0
        try:
            async with asyncio.timeout(self._settings.read_timeout_s):
                with open(path, "wb") as stream:
                    async for chunk in request.stream():
                        received += len(chunk)
                        if received > most:
                            raise self._too_large()
                        stream.write(chunk)
        except TimeoutError:
            limit = f"read_timeout_s={self._settings.read_timeout_s:g}"
            raise HTTPException(408, f"the body took longer than {limit}") from None
        except ClientDisconnect:
            raise HTTPException(400, "the body ended early") from None
        if not received:
            raise HTTPException(400, "the body is empty; send a file or a request as the body")

    def _too_large(self) -> HTTPException:
        limit = f"max_body_mib={self._settings.max_body_mib:g}"
        return HTTPException(413, f"the body is larger than {limit}; send a smaller volume")


async def _to_its_end(job: "asyncio.Future[Result]") -> Result:
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        raise


def _version(model: LoadedModel) -> dict[str, str]:
    return {VERSION_HEADER: model.version}


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # the connection ends: the remainder of the body may be on its way
    headers = {**(error.headers or {}), "connection": "close"}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


async def _refuse_user(_: Request, error: Exception) -> Response:
    status = 400 if isinstance(error, tensors.BadRequestError) else 422
    return JSONResponse({"error": " ".join(str(error).split())}, status)


async def _fail(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log has the reason"}, 500)


class _Observed:
    """Puts the model's version on every answer and counts it."""

    def __init__(self, app: ASGIApp, endpoints: _Endpoints) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                name = VERSION_HEADER.encode()
                if all(key != name for key, _ in message["headers"]):
                    version = self._endpoints.served.current.version.encode()
                    message["headers"] = [*message["headers"], (name, version)]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            seconds = time.perf_counter() - started
            self._endpoints.counters.observe(_pattern(scope), status, seconds)


def _pattern(scope: Scope) -> str:
    """The last word of a known path, else `other`."""
    endpoint = scope.get("endpoint")
    return str(getattr(endpoint, "__name__", "other"))
