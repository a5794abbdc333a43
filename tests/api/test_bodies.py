"""Reading bodies: in parts, within limits of memory and time, from clients that disconnect."""

import asyncio
import gc
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from server.api.body import (
    MAX_LARGE_BODIES,
    MIN_BYTES_PER_S,
    SMALL_BODY_BYTES,
    BodyBudget,
    BodyLimits,
    ReadTimeout,
    key_of,
    longest_wait_s,
)
from server.api.endpoint import WATCH_AFTER_S, DisconnectWatch, Endpoint
from server.api.native_errors import NATIVE as NATIVE_DIALECT
from server.api.operation import Call, Handler, Operation, worker_call
from server.api.replies import REQUEST_ID, WRITE, Reply, json_body, send_reply
from server.auth.gate import Needs
from server.config import Config
from server.errors import InvalidRequest
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support.clients import Wire, app_of, ask, lifespan, stateful
from tests.support.dialects import (
    AS_JSON,
    POSTS,
    Form,
    by_form,
)
from tests.support.fakes import PATIENCE_S, Gated, with_parts


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("size", [1, 4, 64])
def test_chunked_body_over_the_limit_is_refused_before_it_is_read_whole(
    toy_model: Model, path: str, size: int
) -> None:
    limit = 8 * 1024
    wire = Wire(path, [b" " * 1024 * size] * 1000, complete=False)

    async def test() -> None:
        app = app_of(toy_model, lanes=1, max_body_bytes=limit)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert wire.status == 413
    assert (b"connection", b"close") in wire.sent[0]["headers"]
    error = json.loads(wire.sent[1]["body"])["error"]
    if POSTS[path] == "ollama":
        assert error.startswith("the body is larger than the server accepts")
    else:
        assert error["code"] == "request_too_large"
    assert wire.taken <= limit // (1024 * size) + 1


def test_body_of_exactly_the_limit_in_parts_is_read(toy_model: Model) -> None:
    body = json.dumps({"texts": ["墨池"]}).encode()
    body += b" " * (1024 - len(body))
    wire = Wire("/embed", [body[:10], b"", body[10:500], body[500:], b""])

    async def test() -> None:
        app = app_of(toy_model, lanes=1, max_body_bytes=1024)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    assert wire.status == 200
    assert len(json.loads(wire.sent[1]["body"])["vectors"]) == 1


def test_client_that_leaves_while_it_sends_gets_nothing(toy_model: Model) -> None:
    async def test() -> None:
        wire = Wire("/embed", [b'{"texts": ["a'], complete=False)
        wire.leave()
        app = app_of(toy_model, lanes=1)
        async with lifespan(app) as state:
            await stateful(app, state)(wire.scope, wire.receive, wire.send)
        assert wire.sent == []

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@by_form
def test_client_that_leaves_while_it_waits_is_abandoned(toy_model: Model, form: Form) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        wire = Wire(form.path, [json.dumps(form.body(["墨池" * 20] * 500)).encode()])
        app = app_of(with_parts(toy_model, encoder=gate), lanes=1)
        async with lifespan(app) as state:
            called = stateful(app, state)
            request = asyncio.ensure_future(called(wire.scope, wire.receive, wire.send))
            await asyncio.to_thread(gate.entered.wait, PATIENCE_S)
            assert not request.done()
            wire.leave()
            await request
            gate.open()
        assert wire.sent == []
        assert gate.texts <= Config().batch_tokens // 42 + 1

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_client_that_stays_is_answered_however_long_it_waits(toy_model: Model) -> None:
    async def test() -> None:
        gate = Gated(toy_model.encoder)
        wire = Wire("/embed", [b'{"texts": ["a"]}'])
        app = app_of(with_parts(toy_model, encoder=gate), lanes=1)
        async with lifespan(app) as state:
            called = stateful(app, state)
            request = asyncio.ensure_future(called(wire.scope, wire.receive, wire.send))
            # The second message is read by the watch for disconnects.
            while wire.taken < 2:
                await asyncio.sleep(0.001)
            gate.open()
            await request
        assert wire.status == 200

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_request_that_was_watched_leaves_no_garbage() -> None:
    async def receive() -> Any:
        await asyncio.Future()

    async def request() -> None:
        with DisconnectWatch(receive):
            await asyncio.sleep(2 * WATCH_AFTER_S)

    async def test() -> int:
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(*(request() for _ in range(50)))
            # Let the cancelled listeners end.
            await asyncio.sleep(0.01)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(test()) < 50


# --- memory and time ------------------------------------------------------------------------------


LARGE = 2 * SMALL_BODY_BYTES


async def echo(call: Call) -> Reply:
    return Reply(json_body({"bytes": len(call.body)}))


def endpoint(handler: Handler = echo, needs: Needs = "key", read_s: float = 30) -> Endpoint[Call]:
    """An endpoint for bodies of up to LARGE bytes, and for MAX_LARGE_BODIES of them at once."""
    operation = Operation(NATIVE_DIALECT, "POST", "/x", handler, "Count bytes", needs)
    return Endpoint(operation, worker_call, BodyLimits(LARGE, read_s), Metrics())


def wire(parts: Sequence[bytes], *, complete: bool = True, length: int | None = None) -> Wire:
    made = Wire("/x", parts, complete=complete)
    made.scope["state"] = {"models": None}
    if length is not None:
        made.scope["headers"].append((b"content-length", str(length).encode()))
    return made


def begin(asked: Endpoint[Call], request: Wire) -> "asyncio.Task[None]":
    return asyncio.create_task(asked(request.scope, request.receive, request.send))


async def taken(request: Wire, messages: int) -> None:
    while request.taken < messages:
        await asyncio.sleep(0)


def code(request: Wire) -> str:
    found = json.loads(request.sent[1]["body"])["error"]["code"]
    assert isinstance(found, str)
    return found


def test_large_bodies_have_a_bound_together_and_small_ones_none() -> None:
    async def test() -> None:
        asked = endpoint()
        # They have sent everything but the end.
        sending = [wire([b" " * LARGE], complete=False) for _ in range(MAX_LARGE_BODIES)]
        tasks = [begin(asked, request) for request in sending]
        for request in sending:
            await taken(request, 2)

        announced, chunked = wire([b" " * LARGE], length=LARGE), wire([b" " * LARGE])
        for request, read in ((announced, 0), (chunked, 1)):
            await begin(asked, request)
            assert (request.status, request.taken, code(request)) == (429, read, "overloaded")
            headers = dict(request.sent[0]["headers"])
            assert headers[b"connection"] == b"close"
            assert int(headers[b"retry-after"]) >= 1

        small = wire([b" " * SMALL_BODY_BYTES], length=SMALL_BODY_BYTES)
        await begin(asked, small)
        assert small.status == 200

        # A request that ends, with or without a reply, frees its memory.
        sending[0].leave()
        await tasks[0]
        again = wire([b" " * LARGE], length=LARGE)
        await begin(asked, again)
        assert again.status == 200
        for request, task in zip(sending, tasks, strict=True):
            request.leave()
            await task
        assert BodyBudget.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_counts_until_its_request_is_answered() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def wait(call: Call) -> Reply:
            await gate.wait()
            return await echo(call)

        request = wire([b" " * LARGE])
        task = begin(endpoint(wait), request)
        await taken(request, 1)
        await asyncio.sleep(0)
        assert BodyBudget.taken == LARGE
        gate.set()
        await task
        assert request.status == 200
        assert BodyBudget.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_that_is_only_announced_keeps_no_room_from_others() -> None:
    async def test() -> None:
        asked = endpoint()
        idle = [wire([], length=LARGE) for _ in range(3 * MAX_LARGE_BODIES)]
        tasks = [begin(asked, request) for request in idle]
        await taken(idle[-1], 1)
        sent = wire([b" " * LARGE], length=LARGE)
        await begin(asked, sent)
        assert sent.status == 200
        for request, task in zip(idle, tasks, strict=True):
            request.leave()
            await task

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_failed_and_refused_requests_give_their_memory_back() -> None:
    async def fail(_: Call) -> Reply:
        raise LookupError("broken")

    async def test() -> None:
        for handler, parts, status in ((fail, 1, 500), (echo, 2, 413)):
            request = wire([b" " * LARGE] * parts)
            await begin(endpoint(handler), request)
            assert request.status == status
            assert BodyBudget.taken == 0

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@pytest.mark.parametrize("parts", [[], [b"{"], [b"{", b"", b""]], ids=["none", "one", "empty"])
def test_body_that_never_ends_is_refused_and_its_connection_closed(parts: list[bytes]) -> None:
    async def test() -> None:
        request = wire(parts, complete=False)
        await begin(endpoint(read_s=0.01), request)
        assert (request.status, code(request)) == (400, "invalid_request")
        assert (b"connection", b"close") in request.sent[0]["headers"]
        message = json.loads(request.sent[1]["body"])["error"]["message"]
        assert f"{len(parts[:1])} bytes came" in message and "within 0.01 s" in message

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_has_a_second_for_each_of_its_pieces_and_no_pause_is_long() -> None:
    assert longest_wait_s(0, 0, 30) == 30
    assert longest_wait_s(29, 1, 30) == pytest.approx(1, abs=0.001), "it trickles"
    assert longest_wait_s(100, 100 * MIN_BYTES_PER_S, 30) == 30, "it comes as fast as it must"
    held = 28 * 1024 * 1024
    assert longest_wait_s(29 + held / MIN_BYTES_PER_S, held, 30) == pytest.approx(1)
    assert longest_wait_s(31 + held / MIN_BYTES_PER_S, held, 30) < 0


def test_operation_that_needs_no_key_reads_no_large_body() -> None:
    cases: list[tuple[Needs, int]] = [("nothing", 413), ("key", 200)]

    async def test() -> None:
        for needs, status in cases:
            request = wire([b" " * (SMALL_BODY_BYTES + 1)])
            await begin(endpoint(needs=needs), request)
            assert request.status == status

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_body_that_goes_on_is_read() -> None:
    async def test() -> None:
        timeout = ReadTimeout(PATIENCE_S)
        with timeout:
            timers = [timeout._timer]
            for part in range(3):
                timeout.renew(part)
                timers.append(timeout._timer)
            assert [timer.cancelled() for timer in timers] == [True, True, True, False]
        assert timers[-1].cancelled()

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@pytest.mark.parametrize("parts", [[], [b"{"]], ids=["none", "half"])
def test_server_that_stops_while_a_body_comes_says_so(parts: list[bytes]) -> None:
    async def test() -> None:
        request = wire(parts, complete=False)
        task = begin(endpoint(), request)
        await taken(request, len(parts) + 1)
        task.cancel()
        await task
        assert (request.status, code(request)) == (503, "shutting_down")
        headers = dict(request.sent[0]["headers"])
        assert headers[b"connection"] == b"close" and headers[b"retry-after"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


# --- the key that decides the form -----------------------------------------------------------------


@pytest.mark.parametrize(
    "body, key",
    [
        (b'{"texts": ["a"]}', "texts"),
        (b'{"inputs": ["a"]}', "inputs"),
        (b'{"inputs": ["texts"], "truncate": null}', "inputs"),
        (b'{"texts": ["inputs", "texts"]}', "texts"),
        (b'{"\\u0074exts": ["a"]}', "texts"),
        (b'{"\\u0069nputs": "a"}', "inputs"),
        (b'{"user": {"texts": 1}, "inputs": "a"}', "inputs"),
    ],
)
def test_form_follows_from_the_key_of_the_object(body: bytes, key: str) -> None:
    assert key_of(body, "texts", "inputs") == key


@pytest.mark.parametrize(
    "body", [b"{}", b'{"texts": [], "inputs": []}', b'{"a": ["texts", "inputs"]}']
)
def test_body_with_both_keys_or_neither_has_no_form(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match='exactly one of "texts" and "inputs"'):
        key_of(body, "texts", "inputs")


@pytest.mark.parametrize("body", [b"", b"[]", b'["texts", "inputs"]', b'{"a"'])
def test_body_that_is_no_object_has_no_form(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        key_of(body, "texts", "inputs")


@pytest.mark.parametrize(
    "body", [b'{"texts": ["a"]}', b' {\n "texts" : ["inputs"], "input_type": "query"}']
)
def test_native_body_of_embed_is_decoded_once(
    toy_model: Model, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    json_decode = msgspec.json.decode

    def decode(body: bytes, **options: Any) -> Any:
        decoded.append(body)
        return json_decode(body, **options)

    monkeypatch.setattr(msgspec.json, "decode", decode)
    assert ask(toy_model, "POST", "/embed", content=body, headers=AS_JSON).status_code == 200
    assert decoded == [body]


# --- the end of a request --------------------------------------------------------------------------


def test_answered_request_leaves_no_circle_of_objects_behind() -> None:
    written = []

    def write(*reply: object) -> bool:
        written.append(reply)
        return True

    async def send(_: object) -> None:
        raise AssertionError("sent twice")

    scope: dict[str, Any] = {WRITE: write, REQUEST_ID: b"a"}
    asyncio.run(send_reply(scope, send, Reply(b"{}")))
    assert len(written) == 1
    assert list(scope) == [REQUEST_ID]
