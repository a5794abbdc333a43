"""Debian's nginx with the example in deploy/, in front of the real server."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import ROOT, Server, command, environment, serving
from tests.support.toys import toy_texts

EXAMPLE = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
TEXT = {"texts": toy_texts(1)}


@pytest.fixture(scope="module")
def server(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(toy_artifact, folder, "--audit", str(folder / "audit.jsonl")) as running:
        yield running


@contextlib.contextmanager
def proxied(port: int, folder: Path, certificate: Path, **changes: str) -> Iterator[httpx.Client]:
    """A client of the example in front of the port; `changes` replace words in the example."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    words = {
        "listen 443": f"listen 127.0.0.1:{own}",
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "/etc/nginx/inkwell": str(certificate),
        "/var/log/nginx/inkwell.log": str(folder / "access.log"),
        "/run/inkwell-": f"{folder}/memory-",
        **changes,
    }
    example = EXAMPLE
    for word, instead in words.items():
        assert word in example
        example = example.replace(word, instead)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\nerror_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\n{temporary}{example}}}\n",
        encoding="utf-8",
    )
    arguments = [nginx, "-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")]
    process = subprocess.Popen(arguments)
    try:
        eventually(lambda: process.poll() is not None or _listens(own))
        assert process.poll() is None, (folder / "error.log").read_text()
        with httpx.Client(
            base_url=f"https://127.0.0.1:{own}",
            verify=ssl.create_default_context(cafile=f"{certificate}.crt"),
            timeout=PATIENCE_S,
            trust_env=False,
        ) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def temporary_of(folder: Path) -> set[str]:
    """Return the folders of unlinked files that nginx has open."""
    pid = int((folder / "pid").read_text())
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    files = [Path(link) for link in links if link.endswith(" (deleted)")]
    return {file.relative_to(folder).parts[0] for file in files if file.is_relative_to(folder)}


@pytest.fixture
def client(server: Server, certificate: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    with proxied(server.port, tmp_path / "nginx", certificate) as client:
        yield client


def test_vectors_and_documents_come_through_as_the_server_gives_them(
    client: httpx.Client, server: Server
) -> None:
    with server.client() as direct:
        through, directly = client.post("/embed", json=TEXT), direct.post("/embed", json=TEXT)
    assert through.status_code == 200
    assert through.content == directly.content
    texts = toy_texts(2)
    documents = [{"id": name, "text": text} for name, text in zip("ab", texts, strict=True)]
    assert client.post("/documents", json={"documents": documents}).status_code == 200
    hits = client.post("/search", json={"query": texts[1], "top_k": 1}).json()["hits"]
    assert [hit["id"] for hit in hits] == ["b"]


def test_errors_of_the_server_pass_as_they_are(client: httpx.Client) -> None:
    refused = client.post("/embed", json={"texts": [""]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "empty_input")


def test_a_body_over_the_limit_is_refused_in_the_servers_form(client: httpx.Client) -> None:
    refused = client.post(
        "/embed", content=b" " * (33 << 20), headers={"content-type": "application/json"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


def test_a_large_body_below_the_limit_reaches_the_server(client: httpx.Client) -> None:
    body = json.dumps(TEXT).encode().ljust(8 << 20)
    answer = client.post("/embed", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_texts_on_their_way_are_in_memory_and_in_no_other_file_of_nginx(
    client: httpx.Client, tmp_path: Path
) -> None:
    folder, seen = tmp_path / "nginx", set[str]()

    def body() -> Iterator[bytes]:
        yield json.dumps(TEXT).encode().ljust(1 << 20)
        eventually(lambda: bool(temporary_of(folder)))
        seen.update(temporary_of(folder))

    head = {"content-type": "application/json"}
    assert client.post("/embed", content=body(), headers=head).status_code == 200
    assert seen == {"memory-bodies"}
    assert re.findall(r"_temp_path (/run/\S+);", EXAMPLE) == [
        "/run/inkwell-bodies",
        "/run/inkwell-replies",
    ]


def test_a_key_over_its_quota_is_refused_with_the_time_to_wait(
    toy_artifact: Path, certificate: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    new = command("key", "new", "app", "--scopes", "embed", "--requests-per-minute", "1")
    made = subprocess.run(
        [*new, "--keys", str(keys)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    secret = made.stdout.split()[0]
    with (
        serving(toy_artifact, tmp_path, "--keys", str(keys)) as server,
        proxied(server.port, tmp_path / "nginx", certificate) as client,
    ):
        key = {"authorization": f"Bearer {secret}"}
        answers = [client.post("/embed", json=TEXT, headers=key) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].json()["error"]["code"] == "quota_exceeded"
        assert int(answers[1].headers["retry-after"]) > 1
        assert client.post("/embed", json=TEXT).status_code == 401


def test_an_address_that_asks_too_often_is_refused_in_the_servers_form(
    server: Server, certificate: Path, tmp_path: Path
) -> None:
    rare = {"rate=100r/s": "rate=1r/m", "burst=200": "burst=1"}
    with proxied(server.port, tmp_path / "nginx", certificate, **rare) as client:
        answers = [client.post("/embed", json=TEXT) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == "overloaded"
    assert answers[2].headers["retry-after"] == "1"


def test_a_server_that_does_not_run_is_reported(certificate: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        unused = free.getsockname()[1]
    with proxied(unused, tmp_path / "nginx", certificate) as client:
        answer = client.get("/ready")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "5"


def test_the_audit_and_the_log_of_nginx_share_the_request_and_nginx_knows_the_client(
    client: httpx.Client, server: Server, tmp_path: Path
) -> None:
    answer = client.post("/embed", json=TEXT)
    request = answer.headers["x-request-id"]
    log, audit = tmp_path / "nginx" / "access.log", server.log.with_name("audit.jsonl")
    eventually(lambda: log.is_file() and request in log.read_text())
    line = next(line for line in log.read_text().splitlines() if request in line)
    assert line.startswith(f'127.0.0.1 {request} "POST /embed" 200 ')
    eventually(lambda: request in audit.read_text())
