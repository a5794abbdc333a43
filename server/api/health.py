"""Liveness, readiness and metrics, for operators and their tools."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from server.api.native_errors import NATIVE
from server.api.operation import Call, CollectionCall, CollectionOperation, Operation, OperationOn
from server.api.replies import Reply, json_body
from server.collections.administration.permitted import Collections
from server.collections.registry import CollectionRegistry
from server.errors import ServerError
from server.inference.registry import ModelRegistry
from server.telemetry.metrics import Metrics

C = TypeVar("C", bound=Call)

# Header that names this run of the server.
INSTANCE = b"x-inkwell-instance"
# Returns the pages of metrics of this server's other processes.
Pages = Callable[[], Awaitable[Sequence[str]]]


async def alone() -> Sequence[str]:
    """Return no pages: there are no other processes."""
    return ()


class Health(msgspec.Struct):
    status: str


class Ready(msgspec.Struct):
    """The state of a server that may get traffic. model: for requests that name none."""

    status: str
    model: str


def operations(metrics: Metrics, others: Pages) -> list[CollectionOperation]:
    return _operations(health, ready, MetricsPage(metrics, others))


def node_operations(metrics: Metrics, others: Pages) -> list[Operation]:
    """Return the same for a server without collections."""
    return _operations(node_health, node_ready, MetricsPage(metrics, others))


def _operations(
    health: Callable[[C], Awaitable[Reply]],
    ready: Callable[[C], Awaitable[Reply]],
    page: Callable[[C], Awaitable[Reply]],
) -> list[OperationOn[C]]:
    get = partial(OperationOn[C], NATIVE, "GET")
    return [
        get("/health", health, "Check whether the process answers", "nothing", response=(Health,)),
        get(
            "/ready",
            ready,
            "Check whether the server may get traffic",
            "nothing",
            response=(Ready,),
        ),
        get("/metrics", page, "Metrics for Prometheus", "metrics", plain="text/plain"),
    ]


async def node_health(_: Call) -> Reply:
    """Answer, which shows that the event loop runs. A process that does not should be restarted."""
    return Reply(json_body(Health("ok")))


async def node_ready(call: Call) -> Reply:
    """Check that the lanes can compute; models were tested when they were loaded."""
    call.models.check_ready()
    return Reply(json_body(Ready("ready", call.models.first.name)))


async def health(call: CollectionCall) -> Reply:
    """Answer, which shows that the event loop runs. A process that does not should be restarted.

    The header `x-inkwell-instance` names this run of the server: commands on the same machine find it in
    the data folder, and know that they do not talk to another server.
    """
    return Reply(json_body(Health("ok")), headers=[(INSTANCE, call.collections.instance.encode())])


async def ready(call: CollectionCall) -> Reply:
    """Check that the lanes can compute and the disk has room; models were tested when they were loaded."""
    await asyncio.to_thread(check_ready, call.models, call.collections)
    return Reply(json_body(Ready("ready", call.models.first.name)))


def check_ready(models: ModelRegistry, collections: Collections) -> None:
    """Raise ShuttingDown or NotReady unless the server may get traffic; reads the disk's state."""
    models.check_ready()
    collections.check_disk()


def computes(models: ModelRegistry) -> bool:
    try:
        models.check_ready()
    except ServerError:
        return False
    return True


def is_ready(models: ModelRegistry, collections: CollectionRegistry) -> bool:
    try:
        check_ready(models, collections)
    except ServerError:
        return False
    return True


class MetricsPage:
    """GET /metrics in Prometheus' text format: one page for all processes of the server."""

    def __init__(self, metrics: Metrics, others: Pages) -> None:
        self._metrics = metrics
        self._others = others

    async def __call__(self, _: Call) -> Reply:
        others = await self._others()
        # On another thread: a page of 100 collections takes 28 ms, and a slow disk any time. Meanwhile the
        # loop waits for the interpreter lock, 10 ms at p99 and 15 at most (2026-11-25, 2 cores with other
        # work on them; 0.2 and 4 ms without a page).
        page = await asyncio.to_thread(self._metrics.render, others)
        return Reply(page, content_type=b"text/plain; version=0.0.4; charset=utf-8")
