"""Traces for an OpenTelemetry collector: one span for each request and for each of its steps.

Only this module sends data anywhere: spans, to the address of --trace-endpoint. A span has the route, status,
request id and times, and no text. Without the setting nothing is created or imported; the packages are
an extra, `inkwell-embeddings[otel]`.

Spans are made when the reply is known, from the steps that were noted on the way. A thread of OpenTelemetry
sends them, and drops them if the collector is too slow.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import VERSION
from server.api.replies import REQUEST_ID, WRITE
from server.clock import now, wall_s
from server.config import Config
from server.errors import BadSettings
from server.telemetry import spans
from server.telemetry.spans import Step

# Seconds that one attempt to send may take. A stopping server waits as long.
EXPORT_S = 5
# Nanoseconds: OpenTelemetry's unit of time.
NS = 1_000_000_000


class Tracer:
    """Sends spans from a thread of its own; `close` it at the end, which blocks."""

    def __init__(self, endpoint: str) -> None:
        """Raises BadSettings where the extra is not installed."""
        try:
            import requests
            from opentelemetry import trace as api
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise BadSettings(
                "--trace-endpoint needs OpenTelemetry: pip install 'inkwell-embeddings[otel]'"
            ) from None
        session = requests.Session()
        # No proxy from the environment and no redirection may send spans to another address.
        session.trust_env = False
        session.max_redirects = 0
        exporter = OTLPSpanExporter(endpoint=endpoint, session=session, timeout=EXPORT_S)
        resource = Resource.create({"service.name": "inkwell", "service.version": VERSION})
        self._provider: Any = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Any = self._provider.get_tracer("inkwell", VERSION)
        self._propagator: Any = TraceContextTextMapPropagator()
        self._api: Any = api

    def close(self) -> None:
        """Send the remaining spans, or give up after EXPORT_S."""
        self._provider.shutdown()

    def export(
        self,
        request: Step,
        parent: Mapping[str, str],
        about: Mapping[str, str | int],
        steps: list[Step],
    ) -> None:
        """Send the spans of one request. parent: headers of the W3C's trace context."""
        # The wall clock is read once: if it jumps, all spans of the request move together.
        offset = wall_s() - now()

        def ns(moment: float) -> int:
            return int((moment + offset) * NS)

        context = self._propagator.extract(parent)
        kind = self._api.SpanKind.SERVER
        start = ns(request.began)
        span = self._tracer.start_span(request.name, context, kind, about, start_time=start)
        inside = self._api.set_span_in_context(span, context)
        for step in steps:
            child = self._tracer.start_span(step.name, inside, start_time=ns(step.began))
            child.end(ns(step.ended))
        if int(about.get("http.response.status_code", 0)) >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(ns(request.ended))


def tracer_of(config: Config) -> Tracer | None:
    """Return a tracer, or None where no collector is configured."""
    return Tracer(config.trace_endpoint) if config.trace_endpoint else None


class TracedEndpoint:
    """An endpoint whose requests are traced."""

    def __init__(self, endpoint: ASGIApp, route: str, tracer: Tracer) -> None:
        self._endpoint = endpoint
        self._route = route
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        steps: list[Step] = []
        began, seen = now(), _StatusProbe(scope, send)
        token = spans.CURRENT.set(steps)
        try:
            await self._endpoint(scope, receive, seen.send)
        finally:
            spans.CURRENT.reset(token)
            request = Step(f"{scope['method']} {self._route}", began, now())
            self._tracer.export(request, _parent(scope), self._about(scope, seen.status), steps)

    def _about(self, scope: Scope, status: int | None) -> dict[str, str | int]:
        about: dict[str, str | int] = {
            "http.request.method": scope["method"],
            "http.route": self._route,
            "inkwell.request_id": scope.get(REQUEST_ID, b"").decode(),
        }
        # There is no status if the client disconnected before the reply.
        return about if status is None else {**about, "http.response.status_code": status}


class _StatusProbe:
    """Reads the status of a reply, whether it is sent as messages or written at once."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status: int | None = None
        self._send = send
        self._write = scope.get(WRITE)
        if self._write is not None:
            scope[WRITE] = self.write

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def write(self, status: int, headers: Any, body: bytes | None) -> bool:
        self.status = status
        return bool(self._write is not None and self._write(status, headers, body))


def _parent(scope: Scope) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }
