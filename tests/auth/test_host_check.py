"""A server without keys answers to its own names only, so it refuses pages of other sites."""

import asyncio
import json
import os
import socket
from pathlib import Path

import httpx
import pytest

from server.app import every_operation
from server.auth.host_check import Hosts, is_own, names_of
from server.auth.keys import add_key, new_key
from server.config import Config
from server.errors import Forbidden
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.auth.test_gate import OPERATIONS, audited, path_of, said_in
from tests.net.test_socket import Replies, connect
from tests.support.clients import Wire, app_of, lifespan, run, stateful
from tests.support.fakes import PATIENCE_S
from tests.support.processes import serving

NAMES = frozenset({"search.example", "127.0.0.1"})
PAGE = "http://evil.example:8000"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8000", "10.1.2.3:80", "[::1]:8000", "[::1]", "[fe80::1]:8000"),
        *("localhost", "localhost:8000", "LOCALHOST", "localhost.", "app.localhost:8000"),
        *("search.example", "Search.Example:443", "search.example."),
    ],
)
def test_addresses_localhost_and_given_names_are_its_own(host: str) -> None:
    assert is_own(host.encode(), NAMES)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "search.example.evil"),
        *("localhost.evil.example", "notlocalhost", "evil-search.example", "a.search.example"),
        *("1.2.3.4.5", "[evil.example]", ":8000", ".", "evil.example#localhost", "墨池", "\x00"),
    ],
)
def test_every_other_name_is_not(host: str) -> None:
    assert not is_own(host.encode(), NAMES)


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("Desk.lan.", {"desk.lan", "desk", "desk.local", "desk.internal"}),
        ("desk", {"desk", "desk.local", "desk.internal"}),
        ("", set()),
    ],
)
def test_machine_has_names_in_its_own_network(machine: str, names: set[str]) -> None:
    assert names_of(machine) == names


CONTAINERS = ("host.docker.internal:8000", "HOST.docker.internal.", "host.containers.internal")
NEIGHBOURS = ("evil.local", "evil.internal:8000", "a.host.docker.internal")
STRANGERS = ("evil.example", "local", "internal", "evillocal", "host.docker.internal.evil.example")


@pytest.mark.parametrize("listening", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.5"])
def test_names_of_the_local_network_are_answered_where_it_can_ask_anyway(listening: str) -> None:
    hosts = Hosts(Config(host=listening), Metrics())
    scope = {"server": ("127.0.0.1", 8000)}
    own = os.uname().nodename.split(".")[0]
    for host in (*CONTAINERS, own, f"{own}.local", f"{own}.internal:80"):
        hosts.check(host.encode(), scope)
    for host in NEIGHBOURS:
        if listening in ("0.0.0.0", "10.0.0.5"):
            hosts.check(host.encode(), scope)
        else:
            with pytest.raises(Forbidden):
                hosts.check(host.encode(), scope)
    for host in STRANGERS:
        with pytest.raises(Forbidden):
            hosts.check(host.encode(), scope)


def test_page_of_another_site_gets_nothing_on_any_route(toy_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "audit"

    async def test(client: httpx.AsyncClient) -> None:
        body = {"documents": [{"id": "a", "text": "墨池"}]}
        assert (await client.post("/documents", json=body)).status_code == 200
        for each in OPERATIONS:
            sent: dict[str, str] | None = {} if each.method == "POST" else None
            answer = await client.request(each.method, PAGE + path_of(each), json=sent)
            assert answer.status_code == 403, each.path
            assert answer.content == each.dialect.error_reply(Forbidden(said_in(answer))).body
            assert "'evil.example'" in said_in(answer) and "--allowed-hosts" in said_in(answer)
        assert (await client.head(f"{PAGE}/health")).status_code == 403
        assert (await client.get("/documents/a")).status_code == 200
        page = (await client.get("/metrics")).text
        assert f'inkwell_denied_total{{reason="host"}} {len(OPERATIONS) + 1}.0' in page

    run(test, toy_model, audit=file)
    refused = [line for line in audited(file) if line["status"] == 403]
    assert [line["route"] for line in refused[:-1]] == [f"{o.method} {o.path}" for o in OPERATIONS]


def test_body_of_another_site_is_not_read(toy_model: Model) -> None:
    app = app_of(toy_model)

    async def test() -> None:
        async with lifespan(app) as state:
            wire = Wire("/embed", [b"x" * 1_000_000], complete=False)
            wire.scope["headers"].append((b"host", b"evil.example"))
            await stateful(app, state)(wire.scope, wire.receive, wire.send)
        assert (wire.status, wire.taken) == (403, 0)
        assert (b"connection", b"close") in wire.sent[0]["headers"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_host_of_any_length_is_refused_in_few_words(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        headers = {"host": "a" * 60_000}
        answer = await client.get("http://127.0.0.1:8000/health", headers=headers)
        assert answer.status_code == 403 and len(answer.content) < 1000

    run(test, toy_model)


@pytest.mark.parametrize(
    "settings",
    [
        {"allowed_hosts": "search.example, Evil.Example"},
        {"allowed_hosts": "*"},
        {"host": "evil.example"},
    ],
)
def test_names_that_were_allowed_are_answered(toy_model: Model, settings: dict[str, str]) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for each in every_operation(Config(), Metrics()):
            if each.needs == "nothing":
                # The manual is built apart from the program; another name would get 403.
                answers = (404,) if each.path == "/manual/{page:path}" else (200, 204)
                assert (await client.get(PAGE + path_of(each))).status_code in (200, *answers)

    run(test, toy_model, **settings)


def test_with_keys_any_name_is_answered(toy_model: Model, tmp_path: Path) -> None:
    secret, key = new_key("a", "embed")
    add_key(tmp_path / "keys", key)

    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get(f"{PAGE}/info")).status_code == 401
        answer = await client.get(f"{PAGE}/info", headers={"x-api-key": secret})
        assert answer.status_code == 200

    run(test, toy_model, keys=tmp_path / "keys")


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_every_process_checks_the_host(
    toy_artifact: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with serving(toy_artifact, tmp_path, "--unix-socket", str(tmp_path / "s"), *flags) as server:
        for _ in range(4):
            for head, expected in (
                (b"GET /info HTTP/1.1\r\nHost: evil.example:8000\r\n\r\n", 403),
                (b"DELETE /collections/default HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
                (b"GET /info HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n", 200),
                (b"GET /info HTTP/1.0\r\n\r\n", 200),
            ):
                with connect(server) as connection:
                    connection.sendall(head)
                    status, _, body = Replies(connection).next()
                    assert status == expected, (head, body)
                    assert status == 200 or json.loads(body)
            # No web page can connect to a Unix socket.
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(tmp_path / "s"))
                connection.sendall(b"GET /info HTTP/1.1\r\nHost: inkwell\r\n\r\n")
                assert Replies(connection).next()[0] == 200
