"""The metrics of the process and its disk: read when Prometheus asks, instead of being counted.

All of it is read on the thread that asks, which must not be the event loop's: a disk may take its time.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.system.cpu import memory_limit


class ProcessMetrics(Collector):
    """ready: whether the server may get traffic; data: the data folder. Unset: no sample."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.data: Path | None = None
        self.ready: Callable[[], bool] | None = None

    def collect(self) -> Iterator[Metric]:
        yield self._gauge("threads", "Threads of the process", len(os.listdir("/proc/self/task")))
        text = "Memory that the tightest cgroup allows, or else all of the machine's"
        yield self._gauge("memory_limit_bytes", text, memory_limit() or _memory())
        free = size = ready = None
        if self.data is not None:
            # A disk that is gone has no numbers; GET /ready says why.
            with contextlib.suppress(OSError):
                disk = os.statvfs(self.data)
                free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if self.ready is not None:
            ready = int(self.ready())
        yield self._gauge("disk_free_bytes", "Free bytes on the data folder's disk", free)
        yield self._gauge("disk_bytes", "Size of the data folder's disk", size)
        yield self._gauge("ready", "Whether the server may get traffic, as GET /ready says", ready)

    def _gauge(self, name: str, text: str, value: float | None) -> Metric:
        family = GaugeMetricFamily(f"{self._prefix}_{name}", text)
        if value is not None:
            family.add_metric([], value)
        return family


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
