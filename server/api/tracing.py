"""Traces for a collector of OpenTelemetry, where one is configured: a span a request and one a step of it.

This is the one place in the server that sends anything anywhere: spans, to the address that --trace-endpoint
names. They say route, status, request id and times, and no text. Without the setting nothing of this is
made or imported; the packages are an extra, `inkwell-embeddings[otel]`.

Spans are made when the answer is known, from what was noted on the way, and are sent by a thread of
OpenTelemetry's; where the collector does not keep up, it drops them.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import VERSION
from server.api.endpoint import REQUEST_ID, WRITE
from server.clock import now, wall_s
from server.config import Config
from server.errors import BadSettings
from server.telemetry import spans
from server.telemetry.spans import Step

# Seconds that one attempt to send may take; also what a stopping server waits for.
EXPORT_S = 5
# Nanoseconds: OpenTelemetry's unit of time.
NS = 1_000_000_000


class Tracer:
    """Sends from a thread of its own; `close` it, which blocks."""

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
                "--trace-endpoint needs OpenTelemetry: pip install 'inkwell-embeddings[otel]'",
            ) from None
        session = requests.Session()
        # Neither a proxy of the environment nor a redirection may lead to another address.
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
        """Send what waits, or give up."""
        self._provider.shutdown()

    def tell(
        self,
        title: str,
        parent: Mapping[str, str],
        about: Mapping[str, str | int],
        whole: tuple[float, float],
        steps: list[Step],
    ) -> None:
        """Of one request. parent: W3C's headers; whole: when it began and ended, as in `Step`."""
        # One look at the clock: what it does meanwhile moves no step against another.
        offset = wall_s() - now()

        def ns(moment: float) -> int:
            return int((moment + offset) * NS)

        context = self._propagator.extract(parent)
        kind = self._api.SpanKind.SERVER
        span = self._tracer.start_span(title, context, kind, about, start_time=ns(whole[0]))
        inside = self._api.set_span_in_context(span, context)
        for step in steps:
            part = self._tracer.start_span(step.name, inside, start_time=ns(step.began))
            part.end(ns(step.ended))
        if int(about.get("http.response.status_code", 0)) >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(ns(whole[1]))


def tracer_of(config: Config) -> Tracer | None:
    """None where no collector is configured."""
    return Tracer(config.trace_endpoint) if config.trace_endpoint else None


class Traced:
    """An endpoint whose requests are told to a tracer."""

    def __init__(self, endpoint: ASGIApp, route: str, tracer: Tracer) -> None:
        self._endpoint = endpoint
        self._route = route
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        steps: list[Step] = []
        began, seen = now(), _Status(scope, send)
        token = spans.CURRENT.set(steps)
        try:
            await self._endpoint(scope, receive, seen.send)
        finally:
            spans.CURRENT.reset(token)
            whole = (began, now())
            self._tracer.tell(
                f"{scope['method']} {self._route}",
                _parent(scope),
                self._about(scope, seen),
                whole,
                steps,
            )

    def _about(self, scope: Scope, seen: "_Status") -> dict[str, str | int]:
        about: dict[str, str | int] = {
            "http.request.method": scope["method"],
            "http.route": self._route,
            "inkwell.request_id": scope.get(REQUEST_ID, b"").decode(),
        }
        # A client that left has no status.
        return about if seen.status is None else {**about, "http.response.status_code": seen.status}


class _Status:
    """Looks at a reply on both of its ways out: messages, and a whole one at once."""

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

    def write(self, status: int, headers: Any, body: bytes) -> bool:
        self.status = status
        return bool(self._write is not None and self._write(status, headers, body))


def _parent(scope: Scope) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }
