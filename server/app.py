"""Puts the dialects on their paths, and answers in a dialect's own shape where no route does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import VERSION
from server.api import native, openai, operations, tei
from server.api.http import Call, Endpoint, ErrorReply, Handler, Reply, json_body
from server.config import Config
from server.encoder import Model
from server.engine import Engine
from server.errors import InternalError, MethodNotAllowed, RouteNotFound, ServerError
from server.metrics import Metrics

log = logging.getLogger(__name__)


class State(TypedDict):
    engine: Engine


def create_app(model: Model, config: Config) -> Starlette:
    """The ASGI app; its engine starts and stops with the app's lifespan."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        engine = Engine(model, config, metrics, asyncio.get_running_loop())
        yield {"engine": engine}
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


def _routes(model: Model, config: Config, metrics: Metrics) -> list[Route]:
    def route(method: str, path: str, handler: Handler, error_reply: ErrorReply) -> Route:
        endpoint = Endpoint(path, handler, error_reply, config.max_body_bytes, metrics)
        return Route(path, endpoint, methods=[method])

    async def info(call: Call) -> Reply:
        return Reply(json_body(tei.info(call.engine, config, VERSION)))

    names = openai.ModelNames(model.manifest, config.model_alias)
    embeddings = openai.embeddings(names)
    # Routes are tried in order: the busy ones come first.
    return [
        route("POST", "/embed", native.embed(tei.embed), native.error_reply),
        route("POST", "/v1/embeddings", embeddings, openai.error_reply),
        route("POST", "/embeddings", embeddings, openai.error_reply),
        route("GET", "/v1/models", openai.list_models(names), openai.error_reply),
        route("GET", "/v1/models/{model:path}", openai.get_model(names), openai.error_reply),
        route("GET", "/info", info, tei.error_reply),
        route("GET", "/health", operations.health, native.error_reply),
        route("GET", "/ready", operations.ready, native.error_reply),
        route("GET", "/metrics", operations.MetricsPage(metrics), native.error_reply),
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
