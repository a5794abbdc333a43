"""Requests made from the OpenAPI document, correct and wrong ones, are answered as it says."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase

from server.inference.model import Model
from tests.api.test_openapi import DOCUMENT
from tests.support import clients, processes
from tests.support.fakes import PATIENCE_S

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")
checks = pytest.importorskip("schemathesis.checks")

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
MADE = "http://inkwell/collections"
Send = Callable[[Any], httpx.Response]


def tried(send: Send, each: int) -> dict[int, int]:
    """Send this many cases of each operation, half of them wrong; return the statuses and their counts."""
    statuses: dict[int, int] = {}
    checks.load_all_checks()
    wanted = checks.CHECKS.get_by_names(CHECKS)
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    for found in schema.get_all_operations():
        operation = found.ok()
        raw = operation.definition.raw
        for mode in schemathesis.GenerationMode:
            # Most cases should find something.
            made = send(requests.Request("POST", MADE, json={"name": "laws"}).prepare())
            assert made.status_code in (201, 409)
            inside = {"collection": "laws"} if "{collection}" in operation.path else None
            queried = any(one["in"] == "query" for one in raw.get("parameters", []))
            if mode.is_negative and not queried and "requestBody" not in raw:
                continue  # Any text may stand in a path.

            @hypothesis.settings(
                max_examples=each // 2,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(mode, path_parameters=inside))
            def one(case: Any) -> None:
                made = case.as_transport_kwargs(base_url="http://inkwell")
                kept = ("method", "url", "headers", "params", "cookies", "data", "json")
                made = {key: made[key] for key in kept if key in made}
                answer = send(requests.Request(**made).prepare())
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                case.validate_response(answer, checks=wanted)

            one()
    return statuses


def as_httpx(client: Any, prepared: Any, base: str) -> httpx.Request:
    url = httpx.URL(prepared.url.replace("http://inkwell", base))
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    headers = [(name, str(value)) for name, value in prepared.headers.items()]
    request: httpx.Request = client.build_request(
        prepared.method, url, headers=headers, content=body
    )
    return request


def test_server_answers_as_described(toy_model: Model) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        client = runner.run(stack.enter_async_context(clients.serving(toy_model)))

        def send(prepared: Any) -> httpx.Response:
            request = as_httpx(client, prepared, "http://inkwell")
            return runner.run(asyncio.wait_for(client.send(request), PATIENCE_S))

        try:
            statuses = tried(send, 12)
        finally:
            runner.run(stack.aclose())
    assert sum(statuses.values()) >= 200
    assert statuses[200] and statuses[400]


@pytest.mark.slow
@pytest.mark.fuzz
def test_server_in_its_own_process_answers_as_described(toy_artifact: Path, tmp_path: Path) -> None:
    with processes.serving(toy_artifact, tmp_path) as server, server.client() as client:
        statuses = tried(lambda prepared: client.send(as_httpx(client, prepared, server.url)), 300)
        assert client.get("/ready").status_code == 200
        assert "Traceback" not in server.log.read_text()
    assert sum(statuses.values()) >= 5_000
