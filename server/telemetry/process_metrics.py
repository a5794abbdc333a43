"""The metrics of the process and its disk, read when a page is rendered.

They are read on the thread that renders, which must not be the event loop's: a disk may be slow.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.system.cpu import memory_limit
from server.telemetry.aggregate import Join

# Meaning of each gauge, and how those of several processes join.
GAUGES: Mapping[str, tuple[str, Join]] = {
    "threads": ("Threads of the process", "sum"),
    "memory_limit_bytes": (
        "Memory that the tightest cgroup allows, or else all of the machine's",
        "max",
    ),
    "disk_free_bytes": ("Free bytes on the data folder's disk", "min"),
    "disk_bytes": ("Size of the data folder's disk", "max"),
    "ready": ("Whether the server may get traffic, as GET /ready says", "min"),
}


class ProcessMetrics(Collector):
    """Gauges of the process, the disk and readiness.

    data: the data folder. ready: whether the server may get traffic. None gives no sample.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.data: Path | None = None
        self.ready: Callable[[], bool] | None = None
        self.joins: Mapping[str, Join] = {
            f"{prefix}_{name}": join for name, (_, join) in GAUGES.items()
        }

    def collect(self) -> Iterator[Metric]:
        values = self._values()
        for name, (text, _) in GAUGES.items():
            family = GaugeMetricFamily(f"{self._prefix}_{name}", text)
            if name in values:
                family.add_metric([], values[name])
            yield family

    def _values(self) -> dict[str, float]:
        values: dict[str, float] = {
            "threads": len(os.listdir("/proc/self/task")),
            "memory_limit_bytes": memory_limit() or _memory(),
        }
        if self.data is not None:
            # A disk that is gone has no numbers; GET /ready says why.
            with contextlib.suppress(OSError):
                disk = os.statvfs(self.data)
                values["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
                values["disk_bytes"] = disk.f_blocks * disk.f_frsize
        if self.ready is not None:
            values["ready"] = int(self.ready())
        return values


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
