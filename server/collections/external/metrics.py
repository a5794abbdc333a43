"""The metrics of outboxes and vector databases, read when a page is rendered."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.collections.external.collection import ExternalCollection
from server.collections.external.connection import Connection
from server.telemetry.aggregate import Join
from server.telemetry.metrics import PREFIX

GAUGES: Mapping[str, str] = {
    "outbox_writes": "Acknowledged writes that wait for the vector database",
    "outbox_bytes": "Bytes of acknowledged writes that wait for the vector database",
    "outbox_oldest_seconds": "How long the oldest write has waited",
    "outbox_refused": "1 where the vector database refuses a write, behind which the others wait",
}
COUNTERS: Mapping[str, str] = {
    "outbox_delivered": "Writes that the vector database has taken",
    "outbox_retries": "Attempts to deliver that found no answer",
}
UP = "vector_database_up"
OUTBOX_JOINS: Mapping[str, Join] = {
    **{f"{PREFIX}_{name}": "sum" for name in GAUGES},
    f"{PREFIX}_outbox_oldest_seconds": "max",
    f"{PREFIX}_{UP}": "min",
}


class Externals(Protocol):
    """What the metrics read of the collections in vector databases, from any thread."""

    @property
    def connections(self) -> Mapping[str, Connection]: ...

    def all(self) -> list[ExternalCollection]: ...


class OutboxMetrics(Collector):
    """Gauges and counters of each vector database, over all its collections."""

    def __init__(self, externals: Externals) -> None:
        self._externals = externals

    def collect(self) -> Iterator[Metric]:
        connections = dict(self._externals.connections)
        up = GaugeMetricFamily(
            f"{PREFIX}_{UP}", "Whether the vector database answered last", labels=["database"]
        )
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            **{
                name: GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["database"])
                for name, text in GAUGES.items()
            },
            **{
                name: CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["database"])
                for name, text in COUNTERS.items()
            },
        }
        collections = self._externals.all()
        for name, connection in connections.items():
            up.add_metric([name], float(not connection.is_away))
            some = [each for each in collections if each.connection is connection]
            for each, value in _values(some).items():
                families[each].add_metric([name], value)
        yield up
        yield from families.values()


def _values(collections: list[ExternalCollection]) -> dict[str, float]:
    waiting = [each.waiting for each in collections]
    oldest = [each.oldest_s for each in waiting if each.oldest_s is not None]
    return {
        "outbox_writes": sum(each.writes for each in waiting),
        "outbox_bytes": sum(each.bytes for each in waiting),
        "outbox_oldest_seconds": max(oldest, default=0.0),
        "outbox_refused": sum(each.outbox.refusal is not None for each in collections),
        "outbox_delivered": sum(each.delivery.counts["delivered"] for each in collections),
        "outbox_retries": sum(each.delivery.counts["retries"] for each in collections),
    }
