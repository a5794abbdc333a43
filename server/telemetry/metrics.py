"""The server's metrics: counters, histograms and gauges for Prometheus."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from server import VERSION
from server.telemetry.aggregate import Join, summed
from server.telemetry.process_metrics import ProcessMetrics
from server.telemetry.tei_metrics import TEI_JOINS, TeiMetrics

PREFIX = "inkwell"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# How the gauges of prometheus_client's own collectors join over processes.
STANDARD_JOINS: Mapping[str, Join] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_start_time_seconds": "min",
    "process_open_fds": "sum",
    "process_max_fds": "max",
    "python_info": "max",
}


class Metrics:
    """The metrics of one app, in a registry of their own: several apps in a process stay apart.

    joins: how each gauge joins over processes, by its name.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.joins: dict[str, Join] = dict(STANDARD_JOINS)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._declare_requests()
        self._declare_lanes()
        self._declare_collections()
        self._declare_server()
        self.process = ProcessMetrics(PREFIX)
        self.register(self.process, self.process.joins)
        self.register(TeiMetrics(self), TEI_JOINS)

    def _declare_requests(self) -> None:
        self.requests = self._counter("requests", "Requests answered", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Time from the body's arrival to the reply", SECONDS, "route"
        )
        self.texts = self._counter("texts", "Texts embedded, and pairs scored")
        self.tokens = self._counter("tokens", "Tokens computed, special tokens included")
        self.truncated = self._counter("truncated_texts", "Texts cut to the model's maximum")
        self.refused = self._counter("refused", "Requests refused as too large or for lack of room")
        self.unread = self._counter(
            "unread", "Requests refused before they were read, with their connection", "reason"
        )
        self.errors = self._counter(
            "errors", "Requests answered with an error, by its code", "code"
        )
        self.denied = self._counter(
            "denied", "Requests refused for their key, its scopes or quota, or their host", "reason"
        )
        self.audit_lost = self._counter("audit_lost_lines", "Audit lines that were not written")
        self.abandoned = self._counter("abandoned", "Requests whose client left before the answer")

    def _declare_lanes(self) -> None:
        self.failed_batches = self._counter("failed_batches", "Batches whose computation raised")
        self.hung_lanes = self._counter("hung_lanes", "Lanes that hung and were replaced")
        self.queue_seconds = self._histogram(
            "queue_seconds", "Time a request waited for its first batch", SECONDS
        )
        self.infer_seconds = self._histogram(
            "infer_seconds", "Time from a request's first batch to its last vector", SECONDS
        )
        self.tokenize_seconds = self._histogram(
            "tokenize_seconds", "Time to tokenise a request", SECONDS
        )
        self.batch_texts = self._histogram("batch_texts", "Texts computed together", SIZES)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens computed together", SIZES)
        self.batch_tokens_max = self._gauge(
            "batch_tokens_max", "Tokens that a batch may have", join="max"
        )
        self.queue_tokens = self._gauge("queue_tokens", "Tokens waiting", "kind")
        self.queue_tokens_limit = self._gauge("queue_tokens_limit", "Tokens that may wait", "kind")
        self.queue_texts = self._gauge("queue_texts", "Texts waiting")
        self.lanes = self._gauge("lanes", "Lanes running")
        self.lanes_busy = self._gauge("lanes_busy", "Batches that are being computed")
        self.lane_busy_seconds = self._counter(
            "lane_busy_seconds", "Time that lanes spent on batches, all lanes added up"
        )

    def _declare_collections(self) -> None:
        self.searches = self._counter("searches", "Queries searched in collections")
        self.search_seconds = self._histogram(
            "search_seconds", "Time a search took, without embedding its query", SECONDS
        )
        self.query_cache = self._counter(
            "query_cache", "Query vectors that were remembered, shared or computed", "outcome"
        )
        self.query_cache_bytes = self._gauge(
            "query_cache_bytes", "Bytes of remembered query vectors"
        )
        self.recall_probe_seconds = self._histogram(
            "recall_probe_seconds", "Time that a probe of an index's recall took", SECONDS
        )

    def _declare_server(self) -> None:
        self.key_expiry = self._gauge(
            "key_expiry_timestamp_seconds",
            "When the first key expires, since 1970, or never: +Inf",
            join="min",
        )
        self.key_expiry.set(math.inf)
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the TLS certificate expires, since 1970; 0 where clients refuse it, +Inf without one",
            join="min",
        )
        self.certificate_expiry.set(math.inf)
        self.model = self._gauge(
            "model_info",
            "The served model",
            *("model_id", "precision", "fingerprint", "computed_by"),
            join="max",
        )
        build = self._gauge(
            "build_info",
            "Versions of what runs",
            *("version", "python", "onnxruntime", "faiss"),
            join="max",
        )
        libraries = (version("onnxruntime"), version("faiss-cpu"))
        build.labels(VERSION, platform.python_version(), *libraries).set(1)

    def register(self, collector: Collector, joins: Mapping[str, Join]) -> None:
        """Add metrics that are read when a page is rendered. joins: of all their gauges, by name."""
        self.registry.register(collector)
        self.joins.update(joins)

    def count_reply(self, route: str, status: int, error_code: str) -> None:
        """Count an answered request. error_code: empty where the reply reports no error."""
        self.requests.labels(route, str(status)).inc()
        if error_code:
            self.errors.labels(error_code).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, join: Join = "sum") -> Gauge:
        self.joins[f"{PREFIX}_{name}"] = join
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            name, text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets
        )

    def render(self, others: Sequence[str] = ()) -> bytes:
        """Return a page of these metrics, joined with the pages of other processes."""
        page = generate_latest(self.registry)
        return summed([page.decode(), *others], self.joins).encode() if others else page
