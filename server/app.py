"""Puts the dialects on their paths, and answers in a dialect's own shape where no route does."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypedDict, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server import VERSION
from server.api import collections, documents, health, openapi, search
from server.api.dialects import native, ollama, openai, rerank, tei, weaviate
from server.api.dialects.ollama import OLLAMA
from server.api.dialects.openai import OPENAI
from server.api.endpoint import Endpoint
from server.api.health import Pages, alone
from server.api.native_errors import NATIVE
from server.api.operation import Dialect, Operation
from server.api.tracing import Traced, Tracer, tracer_of
from server.api.web import docs
from server.auth.gate import Access, Visit, request_id, secret_in
from server.collections.metrics import CollectionMetrics
from server.collections.recall_probe import Probing
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.errors import MethodNotAllowed, RouteNotFound, ServerError
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.store.folder import DataFolder
from server.telemetry.metrics import Metrics

# Objects more than at the last collection of garbage before the next one. Python's 700 are reached by
# the requests of 64 clients again and again, and nearly nothing is found: it took an eighth of the event
# loop's time (2026-11-25).
GARBAGE_THRESHOLD = 20_000
# A path where nothing is answers in the shape of those beside it.
BENEATH = {"/v1/": OPENAI, "/api/": OLLAMA}


class State(TypedDict):
    models: ModelRegistry
    library: CollectionRegistry


def create_app(
    models: Sequence[Model], config: Config, folder: DataFolder, others: Pages = alone
) -> "App":
    """The ASGI app; its engines and library start and stop with the app's lifespan.

    The first model serves whoever names none. others: pages of metrics of other processes. Raises
    BadSettings where keys or audit cannot be had.
    """
    metrics = Metrics()
    access, tracer = Access(config, metrics), tracer_of(config)
    # Given on, and not kept: one that is replaced later must be let go.
    handed = [models]

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[State]:
        async with _serving(app, handed.pop(), config, metrics, access, tracer) as served:
            library = CollectionRegistry(folder, served, config, metrics)
            probing = Probing(library, metrics, lambda: served.idle)
            metrics.process.data = folder.path
            metrics.process.ready = partial(health.is_ready, served, library)
            metrics.registry.register(CollectionMetrics(library.stats))
            yield {"models": served, "library": library}
            await probing.close()
            # What is still being written needs the engines.
            await library.close()

    return _app(every_operation(config, metrics, others), lifespan, config, metrics, access, tracer)


def create_worker_app(models: Sequence[Model], config: Config, metrics: Metrics) -> "App":
    """The app of a process without a data folder: vectors, and nothing of `Call.library`."""
    access, tracer = Access(config, metrics), tracer_of(config)
    handed = [models]

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[State]:
        async with _serving(app, handed.pop(), config, metrics, access, tracer) as served:
            # No route of a worker looks at the library.
            yield {"models": served, "library": cast(CollectionRegistry, None)}

    return _app(of_vectors(config), lifespan, config, metrics, access, tracer)


@asynccontextmanager
async def _serving(
    app: "App",
    models: Sequence[Model],
    config: Config,
    metrics: Metrics,
    access: Access,
    tracer: Tracer | None,
) -> AsyncIterator[ModelRegistry]:
    served = ModelRegistry(models, config, metrics, asyncio.get_running_loop())
    del models
    # What is here now stays, and need not be looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    yield served
    # The loop must stay free: it resolves what the lanes still finish.
    await asyncio.to_thread(served.close, app.end_by)
    await access.close()
    if tracer is not None:
        await asyncio.to_thread(tracer.close)


def _app(
    operations: Sequence[Operation],
    lifespan: Callable[["App"], AbstractAsyncContextManager[State]],
    config: Config,
    metrics: Metrics,
    access: Access,
    tracer: Tracer | None,
) -> "App":
    endpoints = _endpoints(operations, config, metrics, access, tracer)
    starlette = App(
        routes=_routes(endpoints),
        lifespan=lifespan,
        exception_handlers={HTTPException: Refusals(operations, access).of_router},
    )
    # A path with a slash too many is a 404 like any other, not a redirect that POST clients drop.
    starlette.router.redirect_slashes = False
    starlette.access = access
    starlette.short = {
        (method, path): endpoint
        for path, found in endpoints.items()
        for method, endpoint in found.items()
        if "{" not in path
    }
    return starlette


class App(Starlette):
    """Starlette, and before it a short way to the paths without parameters.

    Its middleware and router take 11 of the 97 us that a small request costs behind uvicorn
    (2026-11-25); what they do for such a path an endpoint does itself.
    """

    short: Mapping[tuple[str, str], ASGIApp] = {}
    # To be told `reload` while it serves, on its event loop.
    access: Access
    # Moment of `now` until which accepted work may take; whoever stops the server knows it.
    end_by: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = self.short.get((scope["method"], scope["path"]))
            if endpoint is not None:
                scope["path_params"] = {}
                return await endpoint(scope, receive, send)
        return await super().__call__(scope, receive, send)


class Methods:
    """The endpoints of one path, by method; Starlette has checked that the method is one of them."""

    def __init__(self, endpoints: Mapping[str, ASGIApp]) -> None:
        self._endpoints = (
            {**endpoints, "HEAD": endpoints["GET"]} if "GET" in endpoints else endpoints
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoints[scope["method"]](scope, receive, send)


def _endpoints(
    operations: Sequence[Operation],
    config: Config,
    metrics: Metrics,
    access: Access | None = None,
    tracer: Tracer | None = None,
) -> dict[str, dict[str, ASGIApp]]:
    """By path, then by method."""
    paths: dict[str, dict[str, ASGIApp]] = {}
    for each in operations:
        endpoint = Endpoint(
            each.path,
            each.handler,
            each.dialect.error_reply,
            config.max_body_bytes,
            metrics,
            config.read_s,
            any_type=each.any_type,
            needs=each.needs,
            access=access,
        )
        traced = endpoint if tracer is None else Traced(endpoint, each.path, tracer)
        paths.setdefault(each.path, {})[each.method] = traced
    return paths


def _routes(endpoints: Mapping[str, Mapping[str, ASGIApp]]) -> list[Route]:
    return [Route(path, Methods(found), methods=list(found)) for path, found in endpoints.items()]


def of_vectors(config: Config) -> list[Operation]:
    """Every route that needs nothing but the models: any process of a server can answer it."""
    return [
        *native.operations(tei.EMBED),
        *openai.operations(),
        *ollama.operations(),
        *weaviate.operations(),
        *tei.operations(config, VERSION),
        *rerank.operations(tei.RERANK),
    ]


def every_operation(config: Config, metrics: Metrics, others: Pages = alone) -> list[Operation]:
    """Every route; they are tried in order, so the busy ones come first."""
    of_collection = [*search.inside(), *documents.inside(), *collections.inside()]
    found = [
        *of_vectors(config),
        # Of the default collection, then of any by its name.
        *of_collection,
        *collections.operations(),
        *(each._replace(path="/collections/{collection}" + each.path) for each in of_collection),
        *health.operations(metrics, others),
        *docs.operations(),
    ]
    return [*found, *openapi.operations(found, VERSION)]


class Refusals:
    """What is answered where no endpoint is, in the shape of the dialect that is spoken there."""

    def __init__(self, operations: Sequence[Operation], access: Access) -> None:
        self._access = access
        self._spoken = {each.path: each.dialect for each in operations}

    async def of_router(self, request: Request, error: Exception) -> Response:
        """404 and 405 of the router."""
        path, method = request.url.path, request.method
        found: ServerError
        if isinstance(error, HTTPException) and error.status_code == 405:
            found = MethodNotAllowed(f"{method} is not allowed on {path}")
        else:
            found = RouteNotFound(f"no such path: {path}")
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        reply = self._dialect(path).error_reply(found)
        headers["x-request-id"] = self._noted(request.scope, reply.status).decode()
        return Response(reply.body, reply.status, headers, media_type=reply.content_type.decode())

    def _noted(self, scope: Scope, status: int) -> bytes:
        """The request's id; the audit has it now."""
        given = dict(scope["headers"])
        id = request_id(given.get(b"x-request-id"))
        if not self._access.idle:
            with Visit(self._access, scope, id, secret_in(given)) as visit:
                visit.status = status
        return id

    def _dialect(self, path: str) -> Dialect:
        beneath = (spoken for start, spoken in BENEATH.items() if path.startswith(start))
        return self._spoken.get(path) or next(beneath, NATIVE)
