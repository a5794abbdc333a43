"""Metrics under the names of Text Embeddings Inference, so that dashboards made for it work here.

Nothing is counted twice: the values are read when a page is rendered.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.telemetry.aggregate import Join

# Routes whose requests Text Embeddings Inference counts.
EMBEDDING_ROUTES = frozenset(
    """/embed / /invocations /similarity /v1/embeddings /embeddings /api/embed /api/embeddings
    /vectors /vectors/""".split()
)
# How the gauges join over processes.
TEI_JOINS: Mapping[str, Join] = {"te_queue_size": "sum"}


class Sources(Protocol):
    """The metrics that are shown under other names."""

    requests: Counter
    request_seconds: Histogram
    tokenize_seconds: Histogram
    queue_seconds: Histogram
    infer_seconds: Histogram
    batch_texts: Histogram
    batch_tokens: Histogram
    queue_texts: Gauge


class TeiMetrics(Collector):
    """The metrics of Text Embeddings Inference, from the counts of this server."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        sources = self._sources
        yield from _request_counts(sources.requests)
        for name, source in (
            ("te_request_duration", sources.request_seconds),
            ("te_request_tokenization_duration", sources.tokenize_seconds),
            ("te_request_queue_duration", sources.queue_seconds),
            ("te_request_inference_duration", sources.infer_seconds),
            ("te_batch_next_size", sources.batch_texts),
            ("te_batch_next_tokens", sources.batch_tokens),
            ("te_queue_size", sources.queue_texts),
        ):
            yield _renamed(name, source)


def _request_counts(requests: Counter) -> Iterator[Metric]:
    (own,) = requests.collect()
    by_status: dict[str, float] = {}
    for sample in own.samples:
        if sample.name.endswith("_total") and sample.labels["route"] in EMBEDDING_ROUTES:
            status = sample.labels["status"]
            by_status[status] = by_status.get(status, 0) + sample.value
    # Without a type, because the format ends a counter's name with "_total" and TEI does not.
    all_requests = Metric("te_request_count", "Requests for vectors", "unknown")
    all_requests.add_sample(all_requests.name, {}, sum(by_status.values()))
    succeeded = Metric("te_request_success", "Requests that got vectors", "unknown")
    succeeded.add_sample(
        succeeded.name, {}, sum(count for status, count in by_status.items() if status[0] == "2")
    )
    failed = Metric("te_request_failure", "Requests that got none, by status", "unknown")
    for status, count in by_status.items():
        if status[0] != "2":
            failed.add_sample(failed.name, {"err": status}, count)
    yield from (all_requests, succeeded, failed)


def _renamed(name: str, source: Gauge | Histogram) -> Metric:
    """Return a metric under another name, with its routes for vectors added up."""
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
