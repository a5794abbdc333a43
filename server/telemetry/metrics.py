"""Counters for Prometheus, and the only clocks besides the lanes'."""

import math
import platform
from collections.abc import Iterator
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
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server import VERSION
from server.telemetry.process_metrics import ProcessMetrics

PREFIX = "inkwell"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Routes whose requests Text Embeddings Inference would count.
EMBEDDING_ROUTES = frozenset(
    """/embed / /invocations /similarity /v1/embeddings /embeddings /api/embed /api/embeddings
    /vectors /vectors/""".split()
)


class Metrics:
    """One registry an app, so that tests and several apps in a process do not meet.

    process: read at each scrape instead of being counted.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests answered", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Time from the body's arrival to the reply", SECONDS, "route"
        )
        self.texts = self._counter("texts", "Texts embedded")
        self.tokens = self._counter("tokens", "Tokens embedded, special tokens included")
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
        self.batch_tokens_max = self._gauge("batch_tokens_max", "Tokens that a batch may have")
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
        self.queue_tokens = self._gauge("queue_tokens", "Tokens waiting", "kind")
        self.queue_tokens_limit = self._gauge("queue_tokens_limit", "Tokens that may wait", "kind")
        self.queue_texts = self._gauge("queue_texts", "Texts waiting")
        self.lanes = self._gauge("lanes", "Lanes running")
        self.lanes_busy = self._gauge("lanes_busy", "Batches that are being computed")
        self.lane_busy_seconds = self._counter(
            "lane_busy_seconds", "Time that lanes spent on batches, all lanes added up"
        )
        self.key_expiry = self._gauge(
            "key_expiry_timestamp_seconds", "When the first key expires, since 1970, or never: +Inf"
        )
        self.key_expiry.set(math.inf)
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the TLS certificate expires, since 1970; 0 where clients refuse it, +Inf without one",
        )
        self.certificate_expiry.set(math.inf)
        self.model = self._gauge(
            "model_info", "The served model", "model_id", "precision", "fingerprint"
        )
        build = self._gauge(
            "build_info", "Versions of what runs", "version", "python", "onnxruntime", "faiss"
        )
        libraries = (version("onnxruntime"), version("faiss-cpu"))
        build.labels(VERSION, platform.python_version(), *libraries).set(1)
        self.process = ProcessMetrics(PREFIX)
        self.registry.register(self.process)
        self.registry.register(NamesOfTei(self))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            name, text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)


class NamesOfTei(Collector):
    """What is counted above, once more under the names of Text Embeddings Inference.

    Its dashboards then need another address only. Nothing is counted twice: it is read when a page
    is asked for.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield from _answers(metrics.requests)
        for name, source in (
            ("te_request_duration", metrics.request_seconds),
            ("te_request_tokenization_duration", metrics.tokenize_seconds),
            ("te_request_queue_duration", metrics.queue_seconds),
            ("te_request_inference_duration", metrics.infer_seconds),
            ("te_batch_next_size", metrics.batch_texts),
            ("te_batch_next_tokens", metrics.batch_tokens),
            ("te_queue_size", metrics.queue_texts),
        ):
            yield _renamed(name, source)


def _answers(requests: Counter) -> Iterator[Metric]:
    (own,) = requests.collect()
    by_status: dict[str, float] = {}
    for sample in own.samples:
        if sample.name.endswith("_total") and sample.labels["route"] in EMBEDDING_ROUTES:
            status = sample.labels["status"]
            by_status[status] = by_status.get(status, 0) + sample.value
    # Untyped, because the format ends a counter's name with "_total" and TEI does not.
    counted = Metric("te_request_count", "Requests for vectors", "unknown")
    counted.add_sample(counted.name, {}, sum(by_status.values()))
    succeeded = Metric("te_request_success", "Requests that got vectors", "unknown")
    succeeded.add_sample(
        succeeded.name, {}, sum(count for status, count in by_status.items() if status[0] == "2")
    )
    failed = Metric("te_request_failure", "Requests that got none, by status", "unknown")
    for status, count in by_status.items():
        if status[0] != "2":
            failed.add_sample(failed.name, {"err": status}, count)
    yield from (counted, succeeded, failed)


def _renamed(name: str, source: Gauge | Histogram) -> Metric:
    """The same under another name, its routes for vectors added up."""
    (own,) = source.collect()
    sums: dict[tuple[str, str | None], float] = {}
    for sample in own.samples:
        ending = sample.name.removeprefix(own.name)
        if sample.labels.get("route", "/embed") in EMBEDDING_ROUTES and ending != "_created":
            key = ending, sample.labels.get("le")
            sums[key] = sums.get(key, 0) + sample.value
    found = Metric(name, own.documentation, own.type)
    for (ending, bound), value in sums.items():
        found.add_sample(name + ending, {} if bound is None else {"le": bound}, value)
    return found
