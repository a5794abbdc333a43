"""What operators and their tools ask: is it alive, is it ready, how is it doing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from server.api.endpoint import Call, Reply, json_body
from server.api.native_errors import NATIVE
from server.api.operation import Operation
from server.collections.registry import CollectionRegistry
from server.errors import ServerError
from server.inference.registry import ModelRegistry
from server.telemetry.aggregate import summed
from server.telemetry.metrics import Metrics

# What the other processes of this server count, each on a page of metrics.
Pages = Callable[[], Awaitable[Sequence[str]]]


async def alone() -> Sequence[str]:
    """There are no others."""
    return ()


class Health(msgspec.Struct):
    status: str


class Ready(msgspec.Struct):
    """model: the one that serves whoever names none."""

    status: str
    model: str


def operations(metrics: Metrics, others: Pages) -> list[Operation]:
    return [
        Operation(
            NATIVE,
            "GET",
            "/health",
            health,
            "Whether the process answers",
            "nothing",
            response=(Health,),
        ),
        Operation(
            NATIVE,
            "GET",
            "/ready",
            ready,
            "Whether it may get traffic",
            "nothing",
            response=(Ready,),
        ),
        Operation(
            NATIVE,
            "GET",
            "/metrics",
            MetricsPage(metrics, others),
            "Prometheus' counters",
            needs="metrics",
            plain="text/plain",
        ),
    ]


async def health(_: Call) -> Reply:
    """The event loop turns; a process of which this is not true should be killed."""
    return Reply(json_body(Health("ok")))


async def ready(call: Call) -> Reply:
    """Models are loaded and proved, lanes are there to compute, and what is written has room."""
    await asyncio.to_thread(check_ready, call.models, call.library)
    return Reply(json_body(Ready("ready", call.models.choose("").name)))


def check_ready(models: ModelRegistry, library: CollectionRegistry) -> None:
    """Raise ShuttingDown or NotReady unless the server may get traffic; looks at the disk."""
    models.check_ready()
    library.check_disk()


def is_ready(models: ModelRegistry, library: CollectionRegistry) -> bool:
    try:
        check_ready(models, library)
    except ServerError:
        return False
    return True


class MetricsPage:
    """GET /metrics in Prometheus' text format: the sum over all processes of the server."""

    def __init__(self, metrics: Metrics, others: Pages) -> None:
        self._metrics = metrics
        self._others = others

    async def __call__(self, _: Call) -> Reply:
        others = await self._others()
        # Beside the loop: a page of 100 collections takes 28 ms, and a slow disk any time. Meanwhile
        # the loop waits for its turn at the interpreter, 10 ms at p99 and 15 at most (2026-11-25, 2
        # cores with other work on them; 0.2 and 4 ms without a page).
        page = await asyncio.to_thread(self._page, others)
        return Reply(page, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _page(self, others: Sequence[str]) -> bytes:
        page = self._metrics.render()
        return summed([page.decode(), *others]).encode() if others else page
