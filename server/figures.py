"""What is looked at when Prometheus asks, instead of being counted: collections, disk, memory, threads.

The values come from callables that the library and the app give when they begin. All of it is read on
the thread that asks, which must not be the event loop's: a disk may take its time.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.cpu import memory_limit

# A label for each collection costs 9 series. Of the first so many; a server with thousands of tenants
# must not fill the memory of whoever watches it.
MAX_LABELLED = 100
# All others together; no collection can have a name with parentheses.
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one collection. Bytes are of files, but for index_bytes, which is memory.

    snapshot_s: when it was written, seconds since 1970. behind: parts that the snapshot lacks or has too
    many, which a start would have to make good. recall: at 10 neighbours, None while all are compared.
    """

    parts: int
    index_bytes: int
    database_bytes: int
    wal_bytes: int
    snapshot_bytes: int
    snapshot_s: float | None
    behind: int
    recall: float | None


# The metric of each field, its sentence, and how those of several collections become one number.
Join = Callable[[Iterable[float]], float]
OF_COLLECTIONS: dict[str, tuple[str, str, Join]] = {
    "parts": ("parts", "Parts of documents in the index", sum),
    "index_bytes": ("index_bytes", "Memory of the index", sum),
    "database_bytes": ("database_bytes", "SQLite's file", sum),
    "wal_bytes": ("wal_bytes", "SQLite's log beside the file", sum),
    "snapshot_bytes": ("snapshot_bytes", "The snapshot of the index", sum),
    "snapshot_s": (
        "snapshot_timestamp_seconds",
        "When the snapshot was written, since 1970",
        min,
    ),
    "behind": (
        "snapshot_behind_parts",
        "Parts by which index and snapshot differ, for the next start to make good",
        sum,
    ),
    "recall": ("recall_at_10", "Recall of searches by codes, as last probed", min),
}


class Stock(Collector):
    """One an app; a process without a data folder shows itself only.

    ready: whether the server may get traffic. data: the data folder.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.collections: Callable[[], Sequence[tuple[str, Figures]]] = tuple
        self.data: Path | None = None
        self.ready: Callable[[], bool] | None = None

    def collect(self) -> Iterator[Metric]:
        found = _bounded(self.collections())
        for field in fields(Figures):
            name, text, _ = OF_COLLECTIONS[field.name]
            family = self._family(name, text, "collection")
            for collection, values in found:
                if (value := values.get(field.name)) is not None:
                    family.add_metric([collection], value)
            yield family
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        yield self._one("threads", "Threads of the process", len(os.listdir("/proc/self/task")))
        text = "Memory that the tightest cgroup allows, or else all of the machine's"
        yield self._one("memory_limit_bytes", text, memory_limit() or _memory())
        free = size = ready = None
        if self.data is not None:
            # A disk that is gone has no numbers; GET /ready says why.
            with contextlib.suppress(OSError):
                disk = os.statvfs(self.data)
                free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if self.ready is not None:
            ready = int(self.ready())
        yield self._one("disk_free_bytes", "Free bytes on the data folder's disk", free)
        yield self._one("disk_bytes", "Size of the data folder's disk", size)
        yield self._one("ready", "Whether the server may get traffic, as GET /ready says", ready)

    def _family(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=labels)

    def _one(self, name: str, text: str, value: float | None) -> Metric:
        family = self._family(name, text)
        if value is not None:
            family.add_metric([], value)
        return family


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bounded(
    found: Sequence[tuple[str, Figures]],
) -> list[tuple[str, dict[str, float]]]:
    """Values by field of the first MAX_LABELLED, then of all others together."""
    each = [(name, _known(figures)) for name, figures in found]
    others = [values for _, values in each[MAX_LABELLED:]]
    each = each[:MAX_LABELLED]
    if others:
        joined = {
            field: join(values[field] for values in others if field in values)
            for field, (_, _, join) in OF_COLLECTIONS.items()
            if any(field in values for values in others)
        }
        each.append((OTHERS, joined))
    return each


def _known(figures: Figures) -> dict[str, float]:
    values = {field: getattr(figures, field) for field in OF_COLLECTIONS}
    return {field: value for field, value in values.items() if value is not None}
