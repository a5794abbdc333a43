"""Puts the dialects on their paths, and answers in a dialect's own shape where no route does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server import VERSION
from server.api import (
    collections,
    documents,
    native,
    openai,
    openapi,
    operations,
    search,
    tei,
)
from server.api.http import Call, Endpoint, ErrorReply, Reply, json_body
from server.api.openapi import Operation
from server.config import Config
from server.encoder import Model
from server.engine import Engine
from server.errors import InternalError, MethodNotAllowed, RouteNotFound, ServerError
from server.library import Library
from server.metrics import Metrics
from server.store.folder import DataFolder

log = logging.getLogger(__name__)


class State(TypedDict):
    engine: Engine
    library: Library


def create_app(model: Model, config: Config, folder: DataFolder) -> Starlette:
    """The ASGI app; its engine and library start and stop with the app's lifespan."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        engine = Engine(model, config, metrics, asyncio.get_running_loop())
        library = Library(folder, engine, config, metrics)
        yield {"engine": engine, "library": library}
        # First, because what is still being written needs the engine.
        await library.close()
        # The loop must stay free: it resolves what the lanes still finish.
        await asyncio.to_thread(engine.close)

    starlette = Starlette(
        routes=_routes(model, config, metrics),
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_exception, Exception: _unforeseen},
    )
    # A path with a slash too many is a 404 like any other, not a redirect that POST clients drop.
    starlette.router.redirect_slashes = False
    return starlette


class Methods:
    """The endpoints of one path, by method; Starlette has checked that the method is one of them."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = (
            {**endpoints, "HEAD": endpoints["GET"]} if "GET" in endpoints else endpoints
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoints[scope["method"]](scope, receive, send)


def _routes(model: Model, config: Config, metrics: Metrics) -> list[Route]:
    paths: dict[str, dict[str, Endpoint]] = {}
    for each in every_operation(model, config, metrics):
        endpoint = Endpoint(
            each.path, each.handler, each.error_reply, config.max_body_bytes, metrics
        )
        paths.setdefault(each.path, {})[each.method] = endpoint
    return [Route(path, Methods(found), methods=list(found)) for path, found in paths.items()]


def every_operation(model: Model, config: Config, metrics: Metrics) -> list[Operation]:
    """Every route; they are tried in order, so the busy ones come first."""

    async def info(call: Call) -> Reply:
        return Reply(json_body(tei.info(call.engine, config, VERSION)))

    names = openai.ModelNames(model.manifest, config.model_alias)
    speaking_openai = partial(Operation, error_reply=openai.error_reply)
    embeddings = partial(
        speaking_openai,
        "POST",
        handler=openai.embeddings(names),
        summary="Vectors of texts, in OpenAI's form",
        request=(openai.EmbeddingsRequest,),
        response=(openai.EmbeddingsReply,),
    )
    here = partial(Operation, error_reply=native.error_reply)
    routes = [
        here(
            "POST",
            "/embed",
            native.embed(tei.embed),
            summary="Vectors of texts, in this server's form or in TEI's",
            request=(native.EmbedRequest, tei.EmbedRequest),
            response=(native.EmbedReply, list[list[float]]),
        ),
        embeddings("/v1/embeddings"),
        embeddings("/embeddings"),
        *_document_operations(),
        speaking_openai(
            "GET", "/v1/models", openai.list_models(names), summary="Names of the served model"
        ),
        speaking_openai(
            "GET", "/v1/models/{model:path}", openai.get_model(names), summary="One of them"
        ),
        Operation("GET", "/info", info, tei.error_reply, "The served model and its limits"),
        here("GET", "/health", operations.health, summary="Whether the process answers"),
        here("GET", "/ready", operations.ready, summary="Whether new requests are taken"),
        here("GET", "/metrics", operations.MetricsPage(metrics), summary="Prometheus' counters"),
    ]
    page = openapi.page(routes, VERSION)
    return [*routes, here("GET", "/openapi.json", page, summary="This document")]


def _document_operations() -> list[Operation]:
    """Those of the default collection, of collections, and of any collection by its name."""
    add = partial(Operation, error_reply=native.error_reply)
    inside = [
        add(
            "POST",
            "/search",
            search.search,
            summary="Find documents",
            request=(search.SearchRequest,),
            response=(search.Hits, search.Results),
        ),
        add(
            "POST",
            "/documents",
            documents.add,
            summary="Store documents",
            request=(documents.AddRequest,),
            response=(documents.Added,),
        ),
        add(
            "GET",
            "/documents",
            documents.page,
            summary="List documents",
            response=(documents.Page,),
            query=("limit", "after", "filter"),
        ),
        add(
            "POST",
            "/documents/delete",
            documents.remove,
            summary="Remove documents",
            request=(documents.Select,),
            response=(documents.Removed,),
        ),
        add(
            "POST",
            "/documents/count",
            documents.count,
            summary="Count documents",
            request=(documents.Select,),
            response=(documents.Count,),
        ),
        add(
            "GET",
            "/documents/{id:path}",
            documents.get,
            summary="One document",
            response=(documents.Stored,),
        ),
        add(
            "DELETE",
            "/documents/{id:path}",
            documents.remove_one,
            summary="Remove one document",
            response=(documents.Removed,),
        ),
        add(
            "GET",
            "/stats",
            collections.stats,
            summary="The collection, its size and its index",
            response=(collections.Stats,),
        ),
        add(
            "POST",
            "/reindex",
            collections.reindex,
            summary="Embed its documents anew",
            request=(collections.ReindexRequest,),
            response=(collections.Stats,),
            status=202,
        ),
    ]
    one = "/collections/{collection}"
    return [
        *inside,
        add(
            "GET",
            "/collections",
            collections.list_collections,
            summary="List collections",
            response=(collections.CollectionList,),
        ),
        add(
            "POST",
            "/collections",
            collections.create,
            summary="Make a collection",
            request=(collections.CreateRequest,),
            response=(collections.Stats,),
            status=201,
        ),
        add(
            "GET",
            one,
            collections.stats,
            summary="The collection, its size and its index",
            response=(collections.Stats,),
        ),
        add(
            "DELETE",
            one,
            collections.remove,
            summary="Delete a collection and all in it",
            response=(collections.RemovedCollection,),
        ),
        *(each._replace(path=one + each.path) for each in inside),
    ]


def _error_reply_for(path: str) -> ErrorReply:
    """The dialect that a client on this path speaks."""
    if path.startswith("/v1/") or path == "/embeddings":
        return openai.error_reply
    return tei.error_reply if path == "/info" else native.error_reply


async def _http_exception(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    path, method = request.url.path, request.method
    found: ServerError
    if isinstance(error, HTTPException) and error.status_code == 405:
        found = MethodNotAllowed(f"{method} is not allowed on {path}")
    else:
        found = RouteNotFound(f"no such path: {path}")
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _response(_error_reply_for(path)(found), headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    """The last handler: whatever was raised outside an endpoint."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    reply = _error_reply_for(request.url.path)(
        InternalError("an internal error occurred; see the log")
    )
    return _response(reply, {})


def _response(reply: Reply, headers: dict[str, str]) -> Response:
    return Response(reply.body, reply.status, headers, media_type=reply.content_type.decode())
