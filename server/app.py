"""The app: every operation on its path, with the models and collections that it works on."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server import VERSION
from server.api import health, openapi
from server.api.administration import collections, copies, names, outbox, transfer, vocabulary
from server.api.body import BodyLimits
from server.api.dialects import cohere, many_vectors, native, ollama, openai, rerank, tei, weaviate
from server.api.dialects.ollama import OLLAMA
from server.api.dialects.openai import OPENAI
from server.api.documents import operations as documents
from server.api.endpoint import Endpoint
from server.api.files import upload
from server.api.health import Pages, alone
from server.api.native_errors import NATIVE
from server.api.no_collections import refused
from server.api.operation import (
    Call,
    CollectionOperation,
    Dialect,
    Operation,
    OperationOn,
    State,
    WorkerState,
    collection_call,
    worker_call,
)
from server.api.overview import chunk_map, metadata
from server.api.replies import MAX_LARGE_REPLIES
from server.api.routing import WholeRoute, is_utf8, without_spare_slashes
from server.api.searching import operations as searching
from server.api.tracing import TracedEndpoint, Tracer, tracer_of
from server.api.web import docs, key, manual, page
from server.auth.gate import Access, Visit, request_id, secret_in
from server.collections.external.connection import Connection
from server.collections.external.metrics import OUTBOX_JOINS, OutboxMetrics
from server.collections.metrics import COLLECTION_JOINS, CollectionMetrics
from server.collections.recall_probe import RecallProbe
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.errors import MethodNotAllowed, RouteNotFound, ServerError
from server.inference.model import Model
from server.inference.registry import ModelRegistry
from server.inference.token_ids import TokenIds
from server.store.folder import DataFolder
from server.telemetry.metrics import Metrics

# New objects before the next garbage collection. With Python's 700 the requests of 64 clients cause one
# again and again, which finds nearly nothing: an eighth of the event loop's time (2026-11-25).
GARBAGE_THRESHOLD = 20_000
# Dialects of unknown paths, by the beginning of the path.
DIALECT_OF_PREFIX = {
    "/v1/": OPENAI,
    "/models/": OPENAI,
    "/openai/": OPENAI,
    "/api/": OLLAMA,
}
# The metrics' label `route` for requests without an endpoint: the paths that clients try are not bounded.
NO_ROUTE = "(none)"


C = TypeVar("C", bound=Call)
S = TypeVar("S", bound=WorkerState)


def create_app(
    models: Sequence[Model],
    config: Config,
    folder: DataFolder,
    others: Pages = alone,
    databases: Sequence[Connection] = (),
) -> "App":
    """Return the ASGI app; its engines and collections start and stop with the app's lifespan.

    The first model is the default. others: returns the metrics pages of other processes. databases: of the
    settings, which may keep collections. Raises BadSettings if the keys cannot be read or the audit cannot be
    opened.
    """
    metrics = Metrics()
    access, tracer = Access(config, metrics), tracer_of(config)
    # Passed on and not kept here, so that a model that is replaced later can be freed.
    handed = [models]

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[State]:
        async with _serving(app, handed.pop(), config, metrics, access, tracer) as served:
            registry = CollectionRegistry(folder, served, config, metrics, databases)
            probing = RecallProbe(registry, metrics, lambda: served.idle)
            metrics.process.data = folder.path
            metrics.process.ready = partial(health.is_ready, served, registry)
            metrics.register(CollectionMetrics(registry.stats), COLLECTION_JOINS)
            metrics.register(OutboxMetrics(registry.external), OUTBOX_JOINS)
            yield {"models": served, "collections": registry}
            await probing.close()
            # Before the engines: documents that are still being written need them.
            await registry.close()

    operations = every_operation(config, metrics, others)
    return _app(operations, collection_call, lifespan, config, metrics, access, tracer)


def create_worker_app(models: Sequence[Model], config: Config, metrics: Metrics) -> "App":
    """Return the app of a worker, which computes vectors and has no collections."""
    return _model_app(model_operations(config), models, config, metrics, lambda served: None)


def create_node_app(models: Sequence[Model], config: Config, others: Pages = alone) -> "App":
    """Return the app of a server that keeps no collections, and so needs no data folder.

    The arguments are those of `create_app`.
    """
    metrics = Metrics()

    def began(served: ModelRegistry) -> None:
        metrics.process.ready = partial(health.computes, served)

    return _model_app(node_operations(config, metrics, others), models, config, metrics, began)


def _model_app(
    operations: Sequence[Operation],
    models: Sequence[Model],
    config: Config,
    metrics: Metrics,
    began: Callable[[ModelRegistry], None],
) -> "App":
    """Return an app whose state is models alone. began: called with them before the first request."""
    access, tracer = Access(config, metrics), tracer_of(config)
    handed = [models]

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[WorkerState]:
        async with _serving(app, handed.pop(), config, metrics, access, tracer) as served:
            began(served)
            yield {"models": served}

    return _app(operations, worker_call, lifespan, config, metrics, access, tracer)


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
    # The objects that exist now stay. The garbage collector need not look at them again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    yield served
    # On another thread: the loop delivers the batches that the lanes still finish.
    await asyncio.to_thread(served.close, app.end_by)
    await access.close()
    if tracer is not None:
        await asyncio.to_thread(tracer.close)


def _app(
    operations: Sequence[OperationOn[C]],
    call_of: Callable[[Scope, bytes, S], C],
    lifespan: Callable[["App"], AbstractAsyncContextManager[S]],
    config: Config,
    metrics: Metrics,
    access: Access,
    tracer: Tracer | None,
) -> "App":
    endpoints = _endpoints(operations, call_of, config, metrics, access, tracer)
    starlette = App(
        routes=[
            WholeRoute(path, MethodRouter(found), list(found)) for path, found in endpoints.items()
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: RouterErrors(operations, access).response},
    )
    # A redirect would lose the body of a POST.
    starlette.router.redirect_slashes = False
    starlette.access = access
    starlette.lenient = frozenset(
        each.path for each in operations if each.dialect is not NATIVE and "{" not in each.path
    )
    starlette.short = {
        (method, path): endpoint
        for path, found in endpoints.items()
        for method, endpoint in found.items()
        if "{" not in path
    }
    return starlette


class App(Starlette):
    """A Starlette app with a short way to the paths without parameters.

    Starlette's middleware and router take 11 of the 97 us that a small request costs behind uvicorn
    (2026-11-25), and an endpoint needs neither.
    """

    # Endpoints by method and path.
    short: Mapping[tuple[str, str], ASGIApp] = {}
    # Paths of other servers' dialects, which are also found with spare slashes.
    lenient: Set[str] = frozenset()
    # For `reload` on the event loop while the app serves.
    access: Access
    # When accepted work must have ended, by `clock.now`. Set by the server when it stops.
    end_by: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = self._endpoint(scope)
            if endpoint is not None:
                scope["path_params"] = {}
                return await endpoint(scope, receive, send)
        return await super().__call__(scope, receive, send)

    def _endpoint(self, scope: Scope) -> ASGIApp | None:
        """Return the endpoint of a path without parameters; takes spare slashes out of the path."""
        method, path = scope["method"], scope["path"]
        endpoint = self.short.get((method, path))
        if endpoint is None and path not in self.lenient:
            plain = without_spare_slashes(path)
            if plain in self.lenient:
                scope["path"] = plain
                endpoint = self.short.get((method, plain))
        return endpoint


class MethodRouter:
    """The endpoints of one path, by method. Starlette has checked that the method is one of them."""

    def __init__(self, endpoints: Mapping[str, ASGIApp]) -> None:
        self._endpoints = (
            {**endpoints, "HEAD": endpoints["GET"]} if "GET" in endpoints else endpoints
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoints[scope["method"]](scope, receive, send)


def _endpoints(
    operations: Sequence[OperationOn[C]],
    call_of: Callable[[Scope, bytes, S], C],
    config: Config,
    metrics: Metrics,
    access: Access,
    tracer: Tracer | None,
) -> dict[str, dict[str, ASGIApp]]:
    """Return the endpoints by path and method."""
    max_unread = MAX_LARGE_REPLIES * config.max_reply_bytes
    limits = BodyLimits(config.max_body_bytes, config.read_s, max_unread)
    paths: dict[str, dict[str, ASGIApp]] = {}
    for each in operations:
        endpoint = Endpoint(each, call_of, limits, metrics, access)
        traced = endpoint if tracer is None else TracedEndpoint(endpoint, each.path, tracer)
        paths.setdefault(each.path, {})[each.method] = traced
    return paths


def model_operations(config: Config) -> list[Operation]:
    """Return every operation that needs only the models: any process of a server can do it."""
    of_ollama = ollama.operations()
    if config.keeps_collections:
        of_ollama = [page.for_browsers(each) if each.path == "/" else each for each in of_ollama]
    return [
        *native.operations(tei.EMBED),
        *openai.operations(TokenIds(config.token_ids)),
        *of_ollama,
        *weaviate.operations(),
        *tei.operations(config, VERSION),
        *many_vectors.operations(tei.TEI, tei.headers_for),
        *rerank.operations(tei.RERANK),
        *cohere.operations(),
    ]


def every_operation(
    config: Config, metrics: Metrics, others: Pages = alone
) -> list[CollectionOperation]:
    """Return every operation. Paths are tried in this order, so the busy ones come first."""
    found: list[CollectionOperation] = [
        *model_operations(config),
        *collection_operations(),
        *health.operations(metrics, others),
        *_for_people(),
    ]
    return [*found, *openapi.operations(found, VERSION)]


def node_operations(config: Config, metrics: Metrics, others: Pages = alone) -> list[Operation]:
    """Return every operation of a server without collections, which refuses those of collections."""
    served: list[Operation] = [
        *model_operations(config),
        *health.node_operations(metrics, others),
        *_for_people(),
    ]
    described = openapi.operations(served, VERSION)
    return [*served, *map(refused, collection_operations()), *described]


def _for_people() -> list[Operation]:
    return [*docs.operations(), *manual.operations(), *page.operations(), *key.operations()]


def collection_operations() -> list[CollectionOperation]:
    """Return every operation on collections and documents."""
    of_collection = [
        *searching.inside(),
        *documents.inside(),
        *upload.inside(),
        *collections.inside(),
        *names.inside(),
        *copies.inside(),
        *vocabulary.inside(),
        *outbox.inside(),
        *transfer.inside(),
        *metadata.inside(),
        *chunk_map.inside(),
    ]
    return [
        # First on the paths of the default collection, then on those with a collection's name.
        *of_collection,
        *collections.operations(),
        *names.operations(),
        *(each._replace(path="/collections/{collection}" + each.path) for each in of_collection),
    ]


class RouterErrors:
    """Answers 404 and 405 in the shape of the dialect at the path."""

    def __init__(self, operations: Sequence[OperationOn[C]], access: Access) -> None:
        self._access = access
        self._dialects = {each.path: each.dialect for each in operations}

    async def response(self, request: Request, error: Exception) -> Response:
        """Return the response to a request for which the router has no endpoint."""
        path, method = request.scope["path"], request.method
        found: ServerError
        if isinstance(error, HTTPException) and error.status_code == 405:
            found = MethodNotAllowed(f"{method} is not allowed on {path}")
        elif not is_utf8(request.scope):
            found = RouteNotFound(f"the path is not UTF-8: {path}; percent-encode UTF-8 bytes")
        else:
            found = RouteNotFound(f"no such path: {path}")
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        reply = self._dialect(path).error_reply(found)
        self._access.metrics.count_reply(NO_ROUTE, reply.status, reply.error_code)
        headers["x-request-id"] = self._audit(request.scope, reply.status).decode()
        return Response(reply.body, reply.status, headers, media_type=reply.content_type.decode())

    def _audit(self, scope: Scope, status: int) -> bytes:
        """Write the request into the audit; return its id."""
        headers = dict(scope["headers"])
        id = request_id(headers.get(b"x-request-id"))
        if not self._access.idle:
            with Visit(self._access, scope, id, secret_in(headers)) as visit:
                visit.status = status
        return id

    def _dialect(self, path: str) -> Dialect:
        found = (each for start, each in DIALECT_OF_PREFIX.items() if path.startswith(start))
        return self._dialects.get(path) or next(found, NATIVE)
