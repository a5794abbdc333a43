"""The set-ups of deploy/setups: their settings, units and proxies, before real servers, nodes and PostgreSQL."""

import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.proxies import listens
from server.app import collection_operations, model_operations
from server.config import Config, databases_in, effective
from server.databases.address import parse, variable
from server.net.server import LAST_REQUEST_S
from tests.deploy.proxies import configured
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.postgres import NEWEST, PASSWORD, postgres_server, programs
from tests.support.processes import ROOT, Server, environment, serving
from tests.support.toys import toy_texts

SETUPS = ROOT / "deploy" / "setups"
NODES = (ROOT / "deploy" / "nodes" / "nginx.conf").read_text(encoding="utf-8")
PATHS = (SETUPS / "nodes" / "paths.conf").read_text(encoding="utf-8")
TEXTS = toy_texts(3)
DOCUMENT = {"id": "a", "text": TEXTS[0]}
INCLUDE = "include /etc/nginx/inkwell.d/*.conf;"


# --- settings -------------------------------------------------------------------------------------


def settings(name: str) -> Config:
    return effective({}, {"config": str(SETUPS / name)}).config


def test_the_server_takes_every_setting_and_only_nodes_keep_nothing() -> None:
    node, server = settings("nodes/node.toml"), settings("nodes/server.toml")
    far = settings("vector-database/server.toml")
    assert [each.keeps_collections for each in (node, server, far)] == [False, True, True]
    assert len({each.keys for each in (node, server, far)}) == 1
    assert len({each.model for each in (node, server, far)}) == 1, "one space of vectors"


def test_the_supervisor_waits_until_a_node_has_drained_and_finished() -> None:
    text = (SETUPS / "nodes" / "network.conf").read_text(encoding="utf-8")
    [limit] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    for name in ("nodes/node.toml", "nodes/server.toml", "vector-database/server.toml"):
        config = settings(name)
        assert config.drain_s + LAST_REQUEST_S + config.shutdown_s <= int(limit)


def test_each_address_of_a_database_can_be_used(tmp_path: Path) -> None:
    text = (SETUPS / "vector-database" / "server.toml").read_text(encoding="utf-8")
    secret = tmp_path / "database.key"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    given = re.findall(r'^(?:# )?vector_database = \["(.+)"\]$', text, re.M)
    kinds = []
    for each in given:
        [(name, uri)] = databases_in(each).items()
        address = parse(name, uri.replace("/etc/inkwell/database.key", str(secret)), {})
        kinds.append(address.kind)
    assert len(kinds) == 3 == len(set(kinds))
    assert settings("vector-database/server.toml").vector_database == given[0]


@pytest.mark.parametrize("name", ["inkwell-standby.service", "inkwell-standby.timer"])
def test_systemd_reads_the_units_without_a_complaint(name: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for each in ("inkwell-standby.service", "inkwell-standby.timer"):
        text = (SETUPS / "standby" / each).read_text(encoding="utf-8")
        (tmp_path / each).write_text(
            text.replace("/opt/inkwell/current/bin/python", sys.executable)
        )
    done = subprocess.run(
        [tool, "--no-pager", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_systemd_takes_the_additions_to_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    unit, additions = tmp_path / "inkwell.service", tmp_path / "inkwell.service.d"
    additions.mkdir()
    shutil.copy(ROOT / "deploy" / "inkwell.service", unit)
    for each in ("nodes/network.conf", "vector-database/python.conf"):
        text = (SETUPS / each).read_text(encoding="utf-8")
        text = text.replace("/opt/inkwell-databases/bin/python", sys.executable)
        (additions / Path(each).name).write_text(text)
    done = subprocess.run(
        [tool, "--no-pager", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # A command of the unit itself that is not there is no finding where an addition replaces it.
    assert done.returncode == 0 and not done.stderr, done.stderr


# --- paths ----------------------------------------------------------------------------------------


def test_documents_and_searches_go_to_the_server_and_everything_else_to_a_node() -> None:
    patterns = [re.compile(each) for each in re.findall(r"^location ~ (\S+) \{$", PATHS, re.M)]

    def of_collections(path: str) -> bool:
        return any(each.search(re.sub(r"\{\w+(:path)?\}", "a", path)) for each in patterns)

    assert [each.path for each in collection_operations() if not of_collections(each.path)] == []
    assert [each.path for each in model_operations(Config()) if of_collections(each.path)] == []


def test_haproxy_takes_the_lines_of_the_page(certificate: Path, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    page = (ROOT / "docs/en/how-to/beyond-one-machine.md").read_text(encoding="utf-8")
    [rule, backend] = re.findall(r"```haproxy\n(.*?)```", page, re.S)
    example = (ROOT / "deploy" / "nodes" / "haproxy.cfg").read_text(encoding="utf-8")
    last = "    default_backend nodes\n"
    assert last in example
    pair = tmp_path / "pair.pem"
    pair.write_text(Path(f"{certificate}.crt").read_text() + Path(f"{certificate}.key").read_text())
    text = example.replace(last, f"{rule}{last}") + f"\n{backend}"
    file = tmp_path / "haproxy.cfg"
    file.write_text(text.replace("/etc/haproxy/inkwell.pem", str(pair)))
    done = subprocess.run(
        [haproxy, "-c", "-f", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
    [expression] = re.findall(r"path_reg (\S+) \}", rule)
    assert re.findall(r"^location ~ (\S+) \{$", PATHS, re.M)[0] == expression


# --- before real servers --------------------------------------------------------------------------


@contextmanager
def proxied(
    upstream: str, nodes: list[Server], servers: list[Server], folder: Path, certificate: Path
) -> Iterator[httpx.Client]:
    """A client of nginx with the nodes' example, the paths of collections, and this upstream for them."""
    (folder / "inkwell.d").mkdir()
    (folder / "inkwell.d" / "collections.conf").write_text(PATHS, encoding="utf-8")
    words = {INCLUDE: f"include {folder}/inkwell.d/*.conf;"}
    for first, running in ((11, nodes), (21, servers)):
        for number, server in enumerate(running):
            words[f"10.0.0.{first + number}:8000"] = f"127.0.0.1:{server.port}"
    examples = [NODES, (SETUPS / upstream).read_text(encoding="utf-8")]
    with configured(examples, words, folder / "nginx", certificate) as url:
        trust = ssl.create_default_context(cafile=f"{certificate}.crt")
        with httpx.Client(
            base_url=url, verify=trust, timeout=PATIENCE_S, trust_env=False
        ) as client:
            yield client


@contextmanager
def running(artifact: Path, folder: Path, *flags: str, environ: Any = None) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    # The proxy's own name is none of this machine's; on other machines keys take the place of this.
    with serving(
        artifact, folder, "--allowed-hosts", "*", *flags, environ=environ or environment()
    ) as server:
        yield server


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_nodes_compute_while_the_server_with_the_collections_is_away(
    toy_artifact: Path, certificate: Path, tmp_path: Path
) -> None:
    off = ("--collections", "off")
    with (
        running(toy_artifact, tmp_path / "one", *off) as one,
        running(toy_artifact, tmp_path / "other", *off) as other,
        running(toy_artifact, tmp_path / "server") as server,
        proxied("nodes/upstream.conf", [one, other], [server], tmp_path, certificate) as client,
    ):
        texts = {"texts": [TEXTS[1]]}
        assert client.post("/embed", json=texts).status_code == 200
        sent = client.post("/documents", json={"documents": [DOCUMENT]})
        assert sent.status_code == 200, sent.text
        found = client.post("/collections/default/search", json={"query": TEXTS[0]})
        assert found.json()["hits"][0]["id"] == "a"
        assert "/collections" in client.get("/openapi.json").text
        # The node's own answer would be 404 task_not_served.
        server.kill()
        assert code(client.post("/search", json={"query": TEXTS[0]})) == (503, "not_ready")
        for _ in range(4):
            assert client.post("/embed", json=texts).status_code == 200


def test_a_second_server_takes_over_and_no_acknowledged_write_is_lost(
    toy_artifact: Path, certificate: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pg8000", reason="the client of PostgreSQL is not installed")
    if programs(NEWEST) is None:
        pytest.skip("the programs of PostgreSQL are not installed")
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server(NEWEST))
        there = f"main={postgres.url(sslmode='disable', timeout_s='2')}"
        environ = environment(**{variable("main"): PASSWORD})

        def start(name: str, *flags: str) -> Server:
            given = ("--vector-database", there, *flags)
            return stack.enter_context(
                running(toy_artifact, tmp_path / name, *given, environ=environ)
            )

        node = stack.enter_context(running(toy_artifact, tmp_path / "node", "--collections", "off"))
        first, second = start("first"), start("second")
        for server in (first, second):
            with server.client() as direct:
                made = direct.post("/collections", json={"name": "laws", "database": "main"})
                assert made.status_code == 201, made.text
        upstream = "vector-database/upstream.conf"
        client = stack.enter_context(
            proxied(upstream, [node, node], [first, second], tmp_path, certificate)
        )

        def store(id: str, text: str) -> Any:
            body = {"documents": [{"id": id, "text": text}]}
            answer = client.post("/collections/laws/documents", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def hit(text: str) -> httpx.Response:
            return client.post("/collections/laws/search", json={"query": text, "top_k": 1})

        assert "queued" not in store("a", TEXTS[0])
        assert hit(TEXTS[0]).json()["hits"][0]["id"] == "a"

        # The database is away: writes wait on the first server, and searches say so.
        postgres.stop(signal.SIGQUIT)
        assert store("b", TEXTS[1])["queued"] is True
        assert code(hit(TEXTS[1])) == (503, "database_away")
        first.kill()
        postgres.start()

        # The second has what the database has. What waits on the first is not there yet, and not lost.
        eventually(lambda: hit(TEXTS[0]).status_code == 200)
        assert client.get("/collections/laws/documents/b").status_code == 404
        store("c", TEXTS[2])
        # Stored later than what waits, so it is what counts in the end.
        store("b", TEXTS[2])
        first = start("first", "--port", str(first.port))
        eventually(
            lambda: listens(first.port) and first.metric("outbox_writes", database="main") == 0
        )
        with second.client() as direct:
            found = direct.get("/collections/laws/documents").json()["documents"]
        assert {each["id"]: each["text"] for each in found} == {
            "a": TEXTS[0],
            "b": TEXTS[2],
            "c": TEXTS[2],
        }
