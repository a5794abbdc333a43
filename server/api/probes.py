"""What operators and their tools ask: is it alive, is it ready, how is it doing."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from server.api.http import Call, Reply, json_body
from server.api.operation import Operation
from server.api.shape import NATIVE
from server.metrics import Metrics
from server.sums import summed

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
            "Whether new requests are taken",
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
    """The process answers; nothing is said about the model."""
    return Reply(json_body(Health("ok")))


async def ready(call: Call) -> Reply:
    """The model is loaded, has proved itself, and new requests are accepted."""
    call.models.check_accepting()
    return Reply(json_body(Ready("ready", call.models.choose("").name)))


class MetricsPage:
    """GET /metrics in Prometheus' text format: the sum over all processes of the server."""

    def __init__(self, metrics: Metrics, others: Pages) -> None:
        self._metrics = metrics
        self._others = others

    async def __call__(self, _: Call) -> Reply:
        others = await self._others()
        page = self._metrics.render()
        if others:
            page = summed([page.decode(), *others]).encode()
        return Reply(page, content_type=b"text/plain; version=0.0.4; charset=utf-8")
