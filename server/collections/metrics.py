"""The metrics of collections, read when a page is rendered and not on the event loop: a disk may be slow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.store.records import CollectionStats
from server.telemetry.aggregate import JOINS, Join
from server.telemetry.metrics import PREFIX

# Collections with a label of their own, which costs 10 series each. A server with thousands of tenants must
# not fill the memory of the Prometheus that scrapes it.
MAX_LABELLED = 100
# All others together; no collection can have a name with parentheses.
OTHERS = "(others)"
# The metric of each field, its description, and how those of several collections or processes join.
GAUGES: Mapping[str, tuple[str, str, Join]] = {
    "chunks": ("parts", "Parts of documents in the index", "sum"),
    "index_bytes": ("index_bytes", "Memory of the index", "sum"),
    "column_bytes": ("column_bytes", "Memory of the fields that filters have read", "sum"),
    "database_bytes": ("database_bytes", "SQLite's file", "sum"),
    "wal_bytes": ("wal_bytes", "SQLite's log beside the file", "sum"),
    "snapshot_bytes": ("snapshot_bytes", "The snapshot of the index", "sum"),
    "snapshot_s": (
        "snapshot_timestamp_seconds",
        "When the snapshot was written, since 1970",
        "min",
    ),
    "behind": (
        "snapshot_behind_parts",
        "Parts by which index and snapshot differ, for the next start to make good",
        "sum",
    ),
    "recall": ("recall_at_10", "Recall of searches by codes, as last probed", "min"),
}
COLLECTION_JOINS: Mapping[str, Join] = {
    f"{PREFIX}_{name}": join for name, _, join in GAUGES.values()
}


class CollectionMetrics(Collector):
    """Gauges of each collection. stats: called for each page; returns names with their stats."""

    def __init__(self, stats: Callable[[], Sequence[tuple[str, CollectionStats]]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        found = _bounded(self._stats())
        for field in fields(CollectionStats):
            name, text, _ = GAUGES[field.name]
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["collection"])
            for collection, values in found:
                if (value := values.get(field.name)) is not None:
                    family.add_metric([collection], value)
            yield family


def _bounded(found: Sequence[tuple[str, CollectionStats]]) -> list[tuple[str, dict[str, float]]]:
    """Return the values by field of the first MAX_LABELLED, then of all others together."""
    each = [(name, _known(stats)) for name, stats in found]
    others = [values for _, values in each[MAX_LABELLED:]]
    each = each[:MAX_LABELLED]
    if others:
        joined = {
            field: JOINS[join](values[field] for values in others if field in values)
            for field, (_, _, join) in GAUGES.items()
            if any(field in values for values in others)
        }
        each.append((OTHERS, joined))
    return each


def _known(stats: CollectionStats) -> dict[str, float]:
    values = {field: getattr(stats, field) for field in GAUGES}
    return {field: value for field, value in values.items() if value is not None}
