"""What operators and their tools ask: is it alive, is it ready, how is it doing."""

from server.api.http import Call, Reply, json_body
from server.errors import ShuttingDown
from server.metrics import Metrics


async def health(_: Call) -> Reply:
    """The process answers; nothing is said about the model."""
    return Reply(json_body({"status": "ok"}))


async def ready(call: Call) -> Reply:
    """The model is loaded, has proved itself, and new requests are accepted."""
    if not call.engine.accepting:
        raise ShuttingDown("the server is stopping", retry_after_s=5)
    return Reply(json_body({"status": "ready", "model": call.engine.manifest.model_id}))


class MetricsPage:
    """GET /metrics in Prometheus' text format."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, _: Call) -> Reply:
        return Reply(
            self._metrics.render(), content_type=b"text/plain; version=0.0.4; charset=utf-8"
        )
