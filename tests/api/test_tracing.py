"""Traces go only to the configured address, with a span for every step and without any text."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.tracing import tracer_of
from server.config import Config
from server.errors import BadSettings
from server.inference.model import Model
from server.telemetry import spans
from tests.support.clients import run
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import environment, serving

SECRET = "墨池里的秘密"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-7"}


# --- without OpenTelemetry ------------------------------------------------------------------------


def test_steps_of_a_request_follow_each_other(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/documents", json={"documents": [{"id": "a", "text": SECRET}]})
        steps: list[spans.Step] = []
        spans.CURRENT.set(steps)
        await client.post("/search", json={"query": SECRET})
        assert [step.name for step in steps] == ["tokenise", "queue", "infer", "search"]
        moments = [moment for step in steps for moment in (step.began, step.ended)]
        assert moments == sorted(moments)

    run(test, toy_model)


def test_number_of_steps_is_bounded() -> None:
    async def test() -> None:
        steps: list[spans.Step] = []
        spans.CURRENT.set(steps)
        for number in range(1000):
            spans.note("queue", number, number)
        assert len(steps) == spans.MAX_STEPS

    asyncio.run(test())


def test_without_the_setting_there_is_no_tracer_and_nothing_is_kept() -> None:
    assert tracer_of(Config()) is None
    assert spans.CURRENT.get() is None
    spans.note("queue", 0, 1)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(BadSettings, match=r"inkwell-embeddings\[otel\]") as refused:
        tracer_of(Config(trace_endpoint="http://127.0.0.1:1/v1/traces"))
    assert "pip install" in refused.value.chinese


# --- with it --------------------------------------------------------------------------------------


@dataclass
class Collector:
    """Receives spans, and keeps their bodies and paths."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextlib.contextmanager
def collector(redirect: str = "") -> Iterator[Collector]:
    """Run a collector that accepts everything, or redirects every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.paths.append(self.path)
            found.bodies.append(body)
            self.send_response(307 if redirect else 200)
            if redirect:
                self.send_header("location", redirect)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def otel() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="make install-otel")


def asked(artifact: Path, folder: Path, endpoint: str, **variables: str) -> None:
    """Start a server, send it three requests and stop it."""
    flags = ("--trace-endpoint", endpoint)
    environ = environment(**variables)
    with serving(artifact, folder, *flags, environ=environ) as server:
        with server.client() as client:
            documents = [{"id": "a", "text": SECRET}]
            client.post("/documents", json={"documents": documents}).raise_for_status()
            client.post("/search", json={"query": SECRET}, headers=CALLER).raise_for_status()
            assert client.post("/embed", json={"texts": [""]}).status_code == 400
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_spans_of_a_search_belong_to_the_callers_trace(
    otel: None, toy_artifact: Path, tmp_path: Path
) -> None:
    with collector() as found:
        asked(toy_artifact, tmp_path, found.url)
    assert set(found.paths) == {"/v1/traces"}
    spans = {span.span_id: span for span in found.spans}
    (search,) = [span for span in spans.values() if span.name == "POST /search"]
    assert (search.trace_id.hex(), search.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(search) == {
        "http.request.method": "POST",
        "http.route": "/search",
        "http.response.status_code": 200,
        "inkwell.request_id": "r-7",
    }
    steps = [span for span in spans.values() if span.parent_span_id == search.span_id]
    steps.sort(key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in steps] == ["tokenise", "queue", "infer", "search"]
    for span in steps:
        assert span.trace_id == search.trace_id
        assert search.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= search.end_time_unix_nano


def test_request_without_a_trace_begins_one_and_says_its_status(
    otel: None, toy_artifact: Path, tmp_path: Path
) -> None:
    with collector() as found:
        asked(toy_artifact, tmp_path, found.url)
    (refused,) = [span for span in found.spans if span.name == "POST /embed"]
    assert not refused.parent_span_id and refused.trace_id.hex() != TRACE
    assert attributes(refused)["http.response.status_code"] == 400


def test_no_text_leaves_the_server(otel: None, toy_artifact: Path, tmp_path: Path) -> None:
    with collector() as found:
        asked(toy_artifact, tmp_path, found.url)
    assert found.bodies
    assert SECRET.encode() not in b"".join(found.bodies)


def test_nothing_goes_to_another_address(otel: None, toy_artifact: Path, tmp_path: Path) -> None:
    with collector() as other, collector(redirect=other.url) as found:
        proxy = other.url.removesuffix("/v1/traces")
        asked(toy_artifact, tmp_path, found.url, HTTP_PROXY=proxy, http_proxy=proxy)
    assert found.bodies and not other.bodies


def test_missing_collector_disturbs_no_request(
    otel: None, toy_artifact: Path, tmp_path: Path
) -> None:
    asked(toy_artifact, tmp_path, "http://127.0.0.1:9/v1/traces")


def test_spans_come_while_the_server_runs(otel: None, toy_artifact: Path, tmp_path: Path) -> None:
    with collector() as found:
        flags = ("--trace-endpoint", found.url, "--workers", "2")
        fast = environment(OTEL_BSP_SCHEDULE_DELAY="50")
        with serving(toy_artifact, tmp_path, *flags, environ=fast) as server:
            for _ in range(4):
                with server.client() as client:
                    client.post("/embed", json={"texts": ["墨"]}).raise_for_status()
            eventually(lambda: sum(span.name == "POST /embed" for span in found.spans) == 4)
