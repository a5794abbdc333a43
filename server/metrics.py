"""Counters for Prometheus, and the only clock besides the lanes'."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

PREFIX = "inkwell"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

now = time.perf_counter


class Metrics:
    """One registry an app, so that tests and several apps in a process do not meet."""

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
        self.abandoned = self._counter("abandoned", "Requests whose client left before the answer")
        self.failed_batches = self._counter("failed_batches", "Batches whose computation raised")
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
        self.searches = self._counter("searches", "Queries searched in collections")
        self.search_seconds = self._histogram(
            "search_seconds", "Time a search took, without embedding its query", SECONDS
        )
        self.query_cache = self._counter(
            "query_cache", "Query vectors that were remembered, shared or computed", "outcome"
        )
        self.query_cache_bytes = Gauge(
            "query_cache_bytes",
            "Bytes of remembered query vectors",
            namespace=PREFIX,
            registry=self.registry,
        )
        self.parts = Gauge(
            "parts",
            "Parts of documents in the index",
            ["collection"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self.queue_tokens = Gauge(
            "queue_tokens", "Tokens waiting", ["kind"], namespace=PREFIX, registry=self.registry
        )
        self.lanes = Gauge("lanes", "Lanes running", namespace=PREFIX, registry=self.registry)
        self.model = Gauge(
            "model_info",
            "The served model",
            ["model_id", "precision", "fingerprint"],
            namespace=PREFIX,
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            name, text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
