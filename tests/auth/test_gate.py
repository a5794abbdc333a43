"""Access control on every route of the app: keys, scopes, quotas and the audit, in this process."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api import endpoint
from server.api.operation import CollectionOperation
from server.app import every_operation
from server.auth import gate
from server.auth.gate import beginning, request_id, secret_in
from server.auth.keys import SCOPES, add_key, new_key, remove_key
from server.auth.quota import ANY, Quota
from server.config import Config
from server.errors import BadSettings, Forbidden, QuotaExceeded, Unauthorized
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.support import processes
from tests.support.clients import Wire, app_of, ask, lifespan, run, serving, stateful
from tests.support.fakes import PATIENCE_S, Broken, Gated, with_parts
from tests.support.processes import Server

OPERATIONS = every_operation(Config(), Metrics())
OPEN = {"/health", "/ready", "/ping", "/docs", "/openapi.json", "GET /"}
OPEN |= {"/ui/{file:path}", "/manual", "/manual/{page:path}"}
OPEN |= {"/.well-known/live", "/.well-known/ready"}
TEXT = "人工智能正在改变世界。"
DAY_S = 86_400
Lines = list[dict[str, Any]]


def path_of(operation: CollectionOperation) -> str:
    return operation.path.replace(":path", "").format(
        collection="laws",
        alias="current",
        id="a",
        model="toy",
        file="main.js",
        page="en/index.html",
    )


def make_key(
    path: Path,
    scopes: str = "embed",
    expires: str | None = None,
    quota: Quota = ANY,
    name: str = "a",
) -> dict[str, str]:
    """Return headers with a new key of the file."""
    secret, key = new_key(name, scopes, expires, quota)
    add_key(path, key)
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# --- scopes ---------------------------------------------------------------------------------------


def test_only_probes_and_the_description_are_open() -> None:
    found = {each.path for each in OPERATIONS if each.needs == "nothing"}
    assert found == {each.removeprefix("GET ") for each in OPEN}
    for each in OPERATIONS:
        if each.needs == "nothing":
            assert each.method == "GET" and not each.request


def test_what_changes_documents_needs_write_and_what_deletes_collections_admin() -> None:
    needs = {f"{each.method} {each.path}": each.needs for each in OPERATIONS}
    inside = "/collections/{collection}"
    for prefix in ("", inside):
        assert needs[f"POST {prefix}/search"] == needs[f"GET {prefix}/documents"] == "search"
        assert needs[f"POST {prefix}/documents"] == needs[f"POST {prefix}/documents/delete"]
        assert needs[f"POST {prefix}/documents"] == needs[f"DELETE {prefix}/documents/{{id:path}}"]
        assert needs[f"POST {prefix}/documents"] == needs["POST /collections"] == "write"
        assert needs[f"POST {prefix}/reindex"] == needs[f"DELETE {inside}"] == "admin"
    assert needs["GET /metrics"] == "metrics"
    # An operation without collections cannot need a scope of them.
    for title, scope in needs.items():
        of_documents = re.search(
            "/(collections|documents|files|search|stats|reindex|metadata|map|rename|aliases|backup|restore|words|outbox|transfer)",
            title,
        )
        assert bool(of_documents) == (scope in ("search", "write", "admin")), title


def test_every_operation_asks_for_a_key_with_its_scope(toy_model: Model, keys: Path) -> None:
    """401 without one, 403 with all scopes but its own, and with its own another answer."""
    holders: dict[str, dict[str, str]]
    holders = {scope: make_key(keys, scope, name=scope) for scope in SCOPES}
    for scope in SCOPES:
        others = ",".join(each for each in SCOPES if each != scope)
        holders[f"not {scope}"] = make_key(keys, others, name=f"not-{scope}")

    async def test(client: httpx.AsyncClient) -> None:
        for each in OPERATIONS:
            answer = await asked(client, each, {})
            if each.needs == "nothing":
                # The manual is built apart from the program.
                built = (204,) if each.path != "/manual/{page:path}" else (404,)
                assert answer.status_code in (200, *built), each.path
                continue
            assert answer.status_code == 401, each.path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            expected = each.dialect.error_reply(Unauthorized(said_in(answer)))
            assert answer.content == expected.body, each.path
            if each.needs == "key":
                assert (await asked(client, each, holders["metrics"])).status_code < 400
                continue
            refused = await asked(client, each, holders[f"not {each.needs}"])
            assert refused.status_code == 403, each.path
            assert f"needs the scope {each.needs}" in refused.text
            assert refused.content == each.dialect.error_reply(Forbidden(said_in(refused))).body
            let_in = await asked(client, each, holders[each.needs])
            assert let_in.status_code not in (401, 403, 500), each.path

    run(test, toy_model, keys=keys)


async def asked(
    client: httpx.AsyncClient, operation: CollectionOperation, headers: dict[str, str]
) -> httpx.Response:
    body: Any = {} if operation.method == "POST" else None
    return await client.request(operation.method, path_of(operation), json=body, headers=headers)


def said_in(answer: httpx.Response) -> str:
    body = answer.json()
    error = body.get("error", body)
    return str(error if isinstance(error, str) else error["message"])


def test_key_is_checked_before_the_body_is_read(toy_model: Model, keys: Path) -> None:
    make_key(keys)
    app = app_of(toy_model, keys=keys)

    async def test() -> None:
        async with lifespan(app) as state:
            wire = Wire("/embed", [b"x" * 1_000_000], complete=False)
            await stateful(app, state)(wire.scope, wire.receive, wire.send)
        assert (wire.status, wire.taken) == (401, 0)
        assert (b"connection", b"close") in wire.sent[0]["headers"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


# --- keys -----------------------------------------------------------------------------------------


def test_key_comes_as_bearer_or_in_a_header_of_its_own(toy_model: Model, keys: Path) -> None:
    secret = make_key(keys)["authorization"].removeprefix("Bearer ")
    good: Sequence[dict[str, str]] = (
        {"authorization": f"Bearer {secret}"},
        {"Authorization": f"bearer  {secret} "},
        {"x-api-key": secret},
        {"api-key": secret},
        # What clients of OpenAI send anyway, and a proxy's own password.
        {"x-api-key": secret, "authorization": "Bearer none"},
        {"x-api-key": secret, "authorization": "Basic YTpi"},
        # What clients send that have no key of the other kind.
        {"x-api-key": "", "authorization": f"Bearer {secret}"},
        {"x-api-key": " ", "api-key": "", "authorization": f"Bearer {secret}"},
    )
    bad: Sequence[dict[str, str]] = (
        {},
        {"authorization": secret},
        {"authorization": f"Basic {secret}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"x-api-key": ""},
        {"api-key": secret[:-1]},
        {"x-api-key": secret[:-1], "authorization": f"Bearer {secret}"},
        {"cookie": f"key={secret}"},
    )

    async def test(client: httpx.AsyncClient) -> None:
        for headers in good:
            assert (await client.get("/v1/models", headers=headers)).status_code == 200, headers
        for headers in bad:
            answer = await client.get("/v1/models", headers=headers)
            assert answer.status_code == 401, headers
            assert secret[:-1] not in answer.text
        # Nor in an address, which logs and histories keep.
        answer = await client.get("/v1/models", params={"key": secret, "api_key": secret})
        assert answer.status_code == 401

    run(test, toy_model, keys=keys)


def test_key_of_any_bytes_is_taken_as_it_is() -> None:
    assert secret_in({b"authorization": b"BEARER \xe5\xa2\xa8"}) == b"\xe5\xa2\xa8"
    assert secret_in({b"authorization": b""}) is None


def test_key_expires_after_its_last_day(
    toy_model: Model, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = make_key(keys, expires="1970-01-10")
    monkeypatch.setattr(gate, "wall_s", lambda: 10 * DAY_S - 1.0)
    settings = {"keys": keys}
    assert ask(toy_model, "GET", "/info", headers=headers, settings=settings).status_code == 200
    monkeypatch.setattr(gate, "wall_s", lambda: 10.0 * DAY_S)
    answer = ask(toy_model, "GET", "/info", headers=headers, settings=settings)
    assert answer.status_code == 401 and "'a' expired on 1970-01-10" in answer.text


def test_keys_are_read_again_all_or_none(toy_model: Model, keys: Path) -> None:
    first = make_key(keys, name="first")
    app = app_of(toy_model, keys=keys)

    async def test() -> None:
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:

                async def statuses() -> list[int]:
                    answers = [await client.get("/info", headers=each) for each in (first, second)]
                    return [answer.status_code for answer in answers]

                second = make_key(keys, name="second")
                assert await statuses() == [200, 401]
                app.access.reload()
                assert await statuses() == [200, 200]
                remove_key(keys, "first")
                app.access.reload()
                assert await statuses() == [401, 200]
                keys.write_text("broken\n")
                with pytest.raises(BadSettings, match="line 1"):
                    app.access.reload()
                assert await statuses() == [401, 200]
                keys.write_text("")
                app.access.reload()
                # No key at all is not the same as no keys file.
                assert await statuses() == [401, 401]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


@pytest.mark.parametrize("content", ["", "\n", "# no keys yet\n"])
def test_server_with_an_empty_keys_file_gives_no_client_access(
    toy_model: Model, keys: Path, content: str
) -> None:
    keys.write_text(content, encoding="utf-8")

    async def test(client: httpx.AsyncClient) -> None:
        for headers in ({}, {"authorization": "Bearer "}, {"x-api-key": "ink_x"}):
            assert (await client.get("/info", headers=headers)).status_code == 401
        assert (await client.get("/health")).status_code == 200

    run(test, toy_model, keys=keys)


def test_refusals_are_counted_by_their_reason(
    toy_model: Model, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "wall_s", lambda: 10.0 * DAY_S)
    spent = make_key(keys, quota=Quota(requests=1), name="spent")
    old = make_key(keys, expires="1970-01-01", name="old")
    scraper = make_key(keys, "metrics", name="scraper")

    async def test(client: httpx.AsyncClient) -> None:
        for headers in ({}, {"x-api-key": "ink_no"}, old, scraper, spent, spent, spent):
            await client.post("/embed", json={"texts": ["墨"]}, headers=headers)
        page = (await client.get("/metrics", headers=scraper)).text
        found = dict(re.findall(r'^inkwell_denied_total\{reason="(\w+)"\} (\S+)$', page, re.M))
        expected = {"missing": 1, "unknown": 1, "expired": 1, "scope": 1, "requests": 2}
        assert {reason: float(count) for reason, count in found.items()} == expected
        assert 'inkwell_requests_total{route="/embed",status="401"} 3.0' in page

    run(test, toy_model, keys=keys)


def test_file_that_others_may_write_is_warned_of(
    toy_model: Model, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_key(keys)
    ask(toy_model, "GET", "/health", settings={"keys": keys})
    assert "chmod go-w" not in caplog.text
    keys.chmod(0o660)
    ask(toy_model, "GET", "/health", settings={"keys": keys})
    assert "chmod go-w" in caplog.text and "keys file" in caplog.text


# --- quotas ---------------------------------------------------------------------------------------


def test_requests_over_the_quota_are_refused_with_the_time_to_wait(
    toy_model: Model, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(gate, "now", lambda: clock[0])
    one = make_key(keys, quota=Quota(requests=2))
    other = make_key(keys, quota=Quota(requests=2), name="other")

    async def test(client: httpx.AsyncClient) -> None:
        async def statuses(*holders: dict[str, str]) -> list[int]:
            answers = [await client.get("/v1/models", headers=each) for each in holders]
            return [answer.status_code for answer in answers]

        assert await statuses(one, one, one, other) == [200, 200, 429, 200]
        refused = await client.get("/v1/models", headers=one)
        assert refused.headers["retry-after"] == "30"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.json()["error"]["code"] == QuotaExceeded.code
        assert "2 requests a minute" in refused.text
        # Requests without the scope are not counted, nor are those to open routes.
        assert (await client.get("/metrics", headers=other)).status_code == 403
        assert (await client.get("/health", headers=one)).status_code == 200
        clock[0] += 30
        assert await statuses(one, one, other, other) == [200, 429, 200, 200]

    run(test, toy_model, keys=keys)


def test_tokens_are_charged_once_computed_and_a_debt_is_waited_for(
    toy_model: Model, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(gate, "now", lambda: clock[0])
    holder = make_key(keys, quota=Quota(tokens=60))

    async def test(client: httpx.AsyncClient) -> None:
        async def embed(texts: list[str]) -> httpx.Response:
            return await client.post("/v1/embeddings", json={"input": texts}, headers=holder)

        tokens = (await embed([TEXT] * 20)).json()["usage"]["total_tokens"]
        assert tokens > 60
        refused = await embed(["墨"])
        assert refused.status_code == 429 and "60 tokens a minute" in refused.text
        # The bucket was full; a token comes back every second.
        assert refused.headers["retry-after"] == str(tokens - 60)
        clock[0] += tokens - 60
        assert (await embed(["墨"])).status_code == 200

    run(test, toy_model, keys=keys)


def test_documents_and_searches_cost_tokens_too_and_remembered_queries_none(
    toy_model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "audit"

    async def test(client: httpx.AsyncClient) -> None:
        documents = [{"id": "a", "text": TEXT}, {"id": "b", "text": "墨池"}]
        await client.post("/documents", json={"documents": documents})
        for _ in range(2):
            await client.post("/search", json={"query": "墨池"})
        await client.post("/search", json={"query": "墨池", "mode": "lexical"})

    run(test, toy_model, audit=file)
    lines = audited(file)
    assert [line["texts"] for line in lines] == [2, 1, 0, 0]
    assert [line["tokens"] > 0 for line in lines] == [True, True, False, False]


def test_quota_that_stays_the_same_stays_used_up_when_keys_are_read_again(
    toy_model: Model, keys: Path
) -> None:
    headers = make_key(keys, quota=Quota(requests=1))
    app = app_of(toy_model, keys=keys)

    async def test() -> None:
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                for reloaded in (False, True):
                    if reloaded:
                        app.access.reload()
                    answer = await client.get("/info", headers=headers)
                    assert answer.status_code == (429 if reloaded else 200)
                keys.write_text(keys.read_text().replace('minute":1', 'minute":2'))
                app.access.reload()
                assert (await client.get("/info", headers=headers)).status_code == 200

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


# --- several processes ----------------------------------------------------------------------------

EACH = 4


@contextmanager
def of_two(artifact: Path, folder: Path, *flags: str) -> Iterator[Server]:
    with processes.serving(artifact, folder, "--workers", "2", *flags) as server:
        yield server


def statuses(server: Server, headers: dict[str, str], path: str = "/embed") -> list[int]:
    """Return the statuses of so many requests at each of two processes."""
    found = []
    for _ in range(2 * EACH):
        # A connection of its own goes to the other process.
        with server.client() as client:
            body = {"query": "墨"} if "search" in path else {"texts": ["墨"]}
            found.append(client.post(path, json=body, headers=headers).status_code)
    return found


def test_each_process_knows_the_keys_and_writes_its_lines_whole(
    toy_artifact: Path, keys: Path, tmp_path: Path
) -> None:
    file, long = tmp_path / "audit", {"x-request-id": "0" * 128}
    embed, search = make_key(keys), make_key(keys, "search", name="b")
    with of_two(toy_artifact, tmp_path, "--keys", str(keys), "--audit", str(file)) as server:
        assert statuses(server, embed | long) == [200] * 2 * EACH
        assert statuses(server, search | long) == [403] * 2 * EACH
        assert statuses(server, {} | long) == [401] * 2 * EACH
        assert server.metric("lanes") == 0, "the metrics are for who has a key"
        assert "each of the" not in server.log.read_text()
        server.process.terminate()
        assert server.wait() == 0
    lines = [line for line in audited(file) if line["route"] == "POST /embed"]
    counted = Counter((line["key"], line["status"], line["request"]) for line in lines)
    id = long["x-request-id"]
    assert counted == {
        ("a", 200, id): 2 * EACH,
        ("b", 403, id): 2 * EACH,
        (None, 401, id): 2 * EACH,
    }


def test_each_process_counts_a_quota_for_itself_and_the_start_warns_of_it(
    toy_artifact: Path, keys: Path, tmp_path: Path
) -> None:
    headers = make_key(keys, quota=Quota(requests=1))
    with of_two(toy_artifact, tmp_path, "--keys", str(keys)) as server:
        said = server.log.read_text()
        assert said.count("each of the 2 processes counts for itself") == 1
        assert Counter(statuses(server, headers)) == {200: 2, 429: 2 * EACH - 2}


# --- ids ------------------------------------------------------------------------------------------


def test_clients_own_id_is_kept_if_it_is_safe() -> None:
    for safe in (b"a", b"A.b_c:d/e+f=g@h-1", b"0" * 128):
        assert request_id(safe) == safe
    for unsafe in (b"", b"0" * 129, b"a b", b"a\nb", b'"', b"{}", "墨".encode(), b"a\x00"):
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", request_id(unsafe))
    made = {request_id(None) for _ in range(1000)}
    assert len(made) == 1000


def test_every_reply_has_an_id(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        seen = set()
        for method, path in (
            *((each.method, path_of(each)) for each in OPERATIONS),
            ("GET", "/missing"),
            ("PATCH", "/embed"),
            ("HEAD", "/health"),
        ):
            answer = await client.request(method, path, content=b"{}")
            seen.add(answer.headers["x-request-id"])
            answer = await client.request(method, path, headers={"x-request-id": "mine"})
            assert answer.headers.get_list("x-request-id") == ["mine"], path
        assert len(seen) == len(OPERATIONS) + 3

    run(test, toy_model)


def test_log_names_the_request_that_failed(
    toy_model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    broken = with_parts(toy_model, encoder=Broken(), wide=None)
    headers = {"x-request-id": "trace-7"}
    answer = ask(broken, "POST", "/embed", {"texts": ["墨"]}, headers=headers)
    assert answer.status_code == 500
    (line,) = (each for each in caplog.messages if "trace-7" in each)
    assert line.startswith("/embed failed, request trace-7")


def test_log_names_the_request_that_failed_by_a_bug(
    toy_model: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ArithmeticError("bug")

    monkeypatch.setattr(endpoint, "read_body", bug)
    answer = ask(toy_model, "GET", "/health", headers={"x-request-id": "trace-8"})
    assert answer.status_code == 500 and answer.headers["x-request-id"] == "trace-8"
    assert any("trace-8" in each for each in caplog.messages)


# --- the audit ------------------------------------------------------------------------------------


def audited(file: Path) -> Lines:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_audit_names_key_and_route_and_never_the_text(
    toy_model: Model, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "wall_s", lambda: 1_795_588_507.25)
    file = tmp_path / "audit"
    holder = make_key(keys, "embed,write,search", name="财务")

    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/v1/embeddings", json={"input": [TEXT, "墨"]}, headers=holder)
        await client.post("/collections", json={"name": "laws"}, headers=holder)
        body = {"documents": [{"id": "a", "text": TEXT}]}
        await client.post("/collections/laws/documents", json=body, headers=holder)
        await client.get("/documents", params={"filter": json.dumps({"a": TEXT})}, headers=holder)

    run(test, toy_model, keys=keys, audit=file)
    assert TEXT.encode() not in file.read_bytes()
    assert holder["authorization"].removeprefix("Bearer ").encode() not in file.read_bytes()
    first, _, third, fourth = audited(file)
    assert list(first) == [
        "time",
        "request",
        "key",
        "route",
        "status",
        "texts",
        "tokens",
        "milliseconds",
        "client",
    ]
    assert (first["key"], first["route"], first["status"]) == ("财务", "POST /v1/embeddings", 200)
    assert first["time"] == "2026-11-25T06:35:07.250Z" and first["client"] == "127.0.0.1"
    assert first["texts"] == 2 and first["tokens"] > 2 and first["milliseconds"] >= 0
    assert third["route"] == "POST /collections/{collection}/documents"
    assert third["collection"] == "laws" and fourth["route"] == "GET /documents"


def test_audit_names_refusals_and_their_keys(toy_model: Model, keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    holder = make_key(keys, quota=Quota(requests=4))

    async def test(client: httpx.AsyncClient) -> None:
        await client.get("/info")
        await client.get("/info", headers={"x-api-key": "ink_no", "x-request-id": "r"})
        await client.get("/metrics", headers=holder)
        await client.post("/embed", content=b"", headers={**holder, "content-type": "text/plain"})
        await client.post("/embed", json={}, headers=holder)
        await client.get(f"/missing/{'x' * 1000}", headers=holder)
        await client.patch("/embed", headers=holder)
        for _ in range(3):
            await client.head("/v1/models", headers=holder)

    run(test, toy_model, keys=keys, audit=file)
    lines = audited(file)
    assert [(line["key"], line["status"]) for line in lines] == [
        (None, 401),
        (None, 401),
        ("a", 403),
        ("a", 415),
        ("a", 400),
        ("a", 404),
        ("a", 405),
        ("a", 200),
        ("a", 200),
        ("a", 429),
    ]
    assert lines[1]["request"] == "r"
    assert len(lines[5]["route"]) < 300 and lines[7]["route"] == "HEAD /v1/models"


def test_audit_keeps_so_much_of_the_body_as_was_asked_for(toy_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    body = json.dumps({"texts": [TEXT]}, ensure_ascii=False)
    settings = {"audit": file, "audit_texts": 20}
    sent = {"content": body.encode(), "headers": {"content-type": "application/json"}}
    ask(toy_model, "POST", "/embed", settings=settings, **sent)
    assert audited(file)[0]["body"] == body[:20]
    ask(toy_model, "GET", "/health", settings=settings)
    assert audited(file)[1]["body"] == ""


def test_beginning_of_a_body_is_what_the_whole_one_begins_with() -> None:
    drawn = random.Random(1)
    pieces = ["a", "é", "墨", "😀", "\0"]
    for _ in range(300):
        text = "".join(drawn.choices(pieces, k=drawn.randrange(40))).encode()
        body = drawn.choice([text, text[:-1], drawn.randbytes(40), text + drawn.randbytes(3)])
        for size in (0, 1, 7, 20, 1000):
            assert beginning(body, size) == body.decode("utf-8", "replace")[:size]


def test_only_what_is_kept_of_a_body_is_decoded() -> None:
    class Body(bytes):
        def __getitem__(self, part: Any) -> Any:
            return Body(super().__getitem__(part))

        def decode(self, *_: object) -> str:
            assert len(self) == 40
            return super().decode("utf-8", "replace")

    assert beginning(Body(b"a" * 1_000_000), 10) == "a" * 10


def test_no_path_makes_a_long_line(toy_model: Model, keys: Path, tmp_path: Path) -> None:
    make_key(keys)
    file, long = tmp_path / "audit", "%01" * 20_000

    async def test(client: httpx.AsyncClient) -> None:
        for path in (f"/collections/{long}/search", f"/documents/{long}", f"/{long}"):
            await client.get(path)
            await client.post(path, json={})

    run(test, toy_model, keys=keys, audit=file)
    assert len(audited(file)) == 6
    assert all(len(line) < 4096 for line in file.read_bytes().splitlines())


def test_client_that_leaves_is_in_the_audit_without_a_status_and_charged(
    toy_model: Model, keys: Path, tmp_path: Path
) -> None:
    file = tmp_path / "audit"
    holder = make_key(keys, quota=Quota(tokens=1))
    encoder = Gated(toy_model.encoder)
    gated = with_parts(toy_model, encoder=encoder, wide=None)
    app = app_of(gated, lanes=1, keys=keys, audit=file)

    async def test() -> None:
        async with lifespan(app) as state:
            wire = Wire("/embed", [json.dumps({"texts": [TEXT]}).encode()])
            name, value = next(iter(holder.items()))
            wire.scope["headers"].append((name.encode(), value.encode()))
            asking = asyncio.ensure_future(
                stateful(app, state)(wire.scope, wire.receive, wire.send)
            )
            await asyncio.to_thread(encoder.entered.wait, PATIENCE_S)
            wire.leave()
            await asking
            encoder.open()
            transport = httpx.ASGITransport(stateful(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                again = await client.get("/info", headers=holder)
        assert again.status_code == 429

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
    first = audited(file)[0]
    assert (first["status"], first["key"], first["texts"]) == (None, "a", 1)


def test_server_goes_on_where_the_audit_cannot_be_written(
    toy_model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            assert (await client.get("/health")).status_code == 200

    run(test, toy_model, audit=Path("/dev/full"))
    assert sum("audit lines are lost" in each for each in caplog.messages) == 1


# --- browsers -------------------------------------------------------------------------------------


def test_no_page_of_another_site_is_ever_allowed_in(toy_model: Model) -> None:
    headers = {
        "origin": "https://elsewhere.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }

    async def test(client: httpx.AsyncClient) -> None:
        for each in OPERATIONS:
            for method in (each.method, "OPTIONS"):
                answer = await client.request(method, path_of(each), headers=headers)
                allowed = [name for name in answer.headers if name.startswith("access-control")]
                assert allowed == [], (method, each.path)
                assert answer.status_code == 405 or method != "OPTIONS"

    run(test, toy_model)


def test_without_keys_and_audit_there_is_nothing_to_do_for_a_request(toy_model: Model) -> None:
    async def test() -> None:
        async with serving(toy_model) as client:
            headers = {"authorization": "Bearer none", "x-api-key": "any"}
            assert (await client.get("/metrics", headers=headers)).status_code == 200

    assert app_of(toy_model).access.idle
    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
