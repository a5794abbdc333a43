"""The warm standby of deploy/setups: real servers, the script of the timer, and nginx in front of both."""

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.setups.standby.standby import COPY, ELSEWHERE, SHRUNK, UNCHANGED, decide, main, mark
from server.app import collection_operations, model_operations
from server.auth.keys import add_key, new_key
from server.config import Config
from tests.deploy.proxies import configured, group_of
from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT, Server, environment, serving
from tests.support.toys import toy_texts

FOLDER = ROOT / "deploy" / "setups" / "standby"
EXAMPLE = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
TEXTS = toy_texts(40)
Json = dict[str, Any]


class Pair:
    """A primary and a standby with the same file of keys, and the script between them."""

    def __init__(self, primary: Server, standby: Server, folder: Path, secret: str) -> None:
        self.primary, self.standby, self.folder = primary, standby, folder
        self.secret = secret
        self._key = folder / "standby.key"
        self._key.write_text(secret + "\n")

    def copy(self) -> "subprocess.CompletedProcess[str]":
        """Run the script as the unit does."""
        variables = {
            "PRIMARY": self.primary.url,
            "STANDBY": self.standby.url,
            "KEY_FILE": str(self._key),
            "FOLDER": str(self.folder / "copies"),
            # The release has its modules installed.
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.run(
            [sys.executable, "-P", str(FOLDER / "standby.py")],
            env=environment(**variables),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    @contextlib.contextmanager
    def asked(self, server: Server) -> Iterator[httpx.Client]:
        with server.client() as client:
            client.headers["authorization"] = f"Bearer {self.secret}"
            yield client

    def ids(self, server: Server, collection: str = "laws") -> list[str]:
        with self.asked(server) as client:
            found = client.get(f"/collections/{collection}/documents", params={"limit": 100})
        return [each["id"] for each in found.json()["documents"]]


@pytest.fixture
def pair(toy_artifact: Path, tmp_path: Path) -> Iterator[Pair]:
    keys = tmp_path / "keys.jsonl"
    secret, key = new_key("all", "embed,search,write,admin")
    add_key(keys, key)
    folders = [tmp_path / name for name in ("primary", "standby")]
    for folder in folders:
        folder.mkdir()
    with (
        serving(toy_artifact, folders[0], "--keys", str(keys), "--drain-s", "2") as primary,
        serving(toy_artifact, folders[1], "--keys", str(keys)) as standby,
    ):
        yield Pair(primary, standby, tmp_path, secret)


def store(client: httpx.Client, ids: range, collection: str = "laws") -> None:
    documents = [{"id": str(each), "text": TEXTS[each]} for each in ids]
    client.post("/collections", json={"name": collection})
    sent = client.post(f"/collections/{collection}/documents", json={"documents": documents})
    assert sent.status_code == 200, sent.text


def test_the_standby_gets_what_has_changed_and_keeps_what_the_primary_lost(pair: Pair) -> None:
    with pair.asked(pair.primary) as client:
        store(client, range(30))
        store(client, range(2), "法律.2")
        store(client, range(1), "-x")
        words = {"synonyms": [["AI", "人工智能"]]}
        client.put("/collections/laws/words", json=words).raise_for_status()
        client.put("/aliases/current", json={"collection": "laws"}).raise_for_status()

        first = pair.copy()
        assert first.returncode == 0, first.stderr
        assert pair.ids(pair.standby) == pair.ids(pair.primary)
        assert len(pair.ids(pair.standby, "法律.2")) == 2
        with pair.asked(pair.standby) as there:
            assert there.get("/collections/current/words").json()["synonyms"] == words["synonyms"]
        assert pair.ids(pair.standby, "-x") == ["0"]
        assert (pair.folder / "copies").stat().st_mode & 0o777 == 0o700
        assert not list((pair.folder / "copies").glob("*.backup*")), "restored ones are removed"

        again = pair.copy()
        assert again.returncode == 0 and ": copy" not in again.stderr, again.stderr

        store(client, range(30, 31))
        assert "laws: copy, 31 documents" in pair.copy().stderr
        assert pair.ids(pair.standby)[-1] == "30"

        # The primary comes back with an empty disk, or as good as that.
        gone = [str(each) for each in range(30)]
        client.post("/collections/laws/documents/delete", json={"ids": gone}).raise_for_status()
        client.delete("/collections/法律.2").raise_for_status()
        lost = pair.copy()
        assert lost.returncode == 1
        assert "the primary has 1 documents, the standby 31: not replaced" in lost.stderr
        assert "法律.2: the primary does not have it any more" in lost.stderr
        assert len(pair.ids(pair.standby)) == 31
        assert pair.secret not in first.stderr + lost.stderr


def test_a_setting_that_is_missing_or_wrong_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main({"PRIMARY": "http://127.0.0.1:1", "FOLDER": str(tmp_path)}) == 1
    assert "STANDBY is not set" in caplog.text
    given = {"PRIMARY": "here", "STANDBY": "there", "FOLDER": str(tmp_path)}
    assert main({**given, "KEY_FILE": str(tmp_path / "none")}) == 1
    assert str(tmp_path / "none") in caplog.text
    assert main(given) == 1
    assert "PRIMARY 'here' is not an address" in caplog.text


def test_a_primary_that_is_away_is_reported_and_changes_nothing(pair: Pair) -> None:
    with pair.asked(pair.primary) as client:
        store(client, range(3))
    assert pair.copy().returncode == 0
    os.killpg(pair.primary.process.pid, signal.SIGKILL)
    pair.primary.process.wait()
    failed = pair.copy()
    assert failed.returncode == 1
    assert pair.primary.url in failed.stderr and "Traceback" not in failed.stderr
    assert len(pair.ids(pair.standby)) == 3


@contextlib.contextmanager
def proxied(pair: Pair, certificate: Path) -> Iterator[httpx.Client]:
    """A client of nginx in front of both."""
    servers = {"10.0.0.21:8000": pair.primary.port, "10.0.0.22:8000": pair.standby.port}
    words = {address: f"127.0.0.1:{port}" for address, port in servers.items()}
    words[r"10\.0\.0\.22:8000"] = rf"127\.0\.0\.1:{pair.standby.port}"
    with configured([EXAMPLE], words, pair.folder / "nginx", certificate) as url:
        trust = ssl.create_default_context(cafile=f"{certificate}.crt")
        head = {"authorization": f"Bearer {pair.secret}"}
        with httpx.Client(
            base_url=url, verify=trust, headers=head, timeout=PATIENCE_S, trust_env=False
        ) as client:
            yield client


def test_searches_go_on_and_writes_wait_while_the_primary_is_away(
    pair: Pair, certificate: Path
) -> None:
    with pair.asked(pair.primary) as client:
        store(client, range(3))
    assert pair.copy().returncode == 0
    document = {"documents": [{"id": "new", "text": TEXTS[3]}]}
    search = {"query": TEXTS[1], "top_k": 1}
    with proxied(pair, certificate) as client:
        assert client.post("/collections/laws/documents", json=document).status_code == 200
        found = client.post("/collections/laws/search", json=search)
        assert found.json()["hits"][0]["id"] == "1"
        assert "x-inkwell-standby" not in found.headers

        os.killpg(pair.primary.process.pid, signal.SIGKILL)
        pair.primary.process.wait()
        for _ in range(3):
            found = client.post("/collections/laws/search", json=search)
            assert (found.status_code, found.json()["hits"][0]["id"]) == (200, "1")
            assert found.headers["x-inkwell-standby"] == "yes"
            assert client.post("/embed", json={"texts": [TEXTS[0]]}).status_code == 200
            refused = client.post("/collections/laws/documents", json=document)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert refused.headers["retry-after"] == "5"
    assert pair.ids(pair.standby) == ["0", "1", "2"], "no write reached the standby"


def test_no_search_fails_while_the_primary_stops(pair: Pair, certificate: Path) -> None:
    with pair.asked(pair.primary) as client:
        store(client, range(3))
    assert pair.copy().returncode == 0
    search = {"query": TEXTS[1], "top_k": 1}
    with proxied(pair, certificate) as client:
        pair.primary.process.send_signal(signal.SIGTERM)
        by_standby = 0
        while by_standby < 20:
            found = client.post("/collections/laws/search", json=search)
            assert (found.status_code, found.json()["hits"][0]["id"]) == (200, "1")
            by_standby += found.headers.get("x-inkwell-standby") == "yes"
    assert pair.primary.wait() == 0


# --- without servers ------------------------------------------------------------------------------

READS = re.compile(r".*/(search|documents/(get|count|export))$")


def test_every_write_goes_to_the_primary_and_everything_else_to_either() -> None:
    for operation in collection_operations():
        path = re.sub(r"\{\w+(:path)?\}", "a", operation.path)
        changes = operation.method != "GET" and not READS.match(path)
        wanted = "inkwell_primary" if changes else "inkwell_either"
        assert group_of(EXAMPLE, operation.method, path) == wanted, (operation.method, path)
    for model in model_operations(Config()):
        path = re.sub(r"\{\w+(:path)?\}", "a", model.path)
        assert group_of(EXAMPLE, model.method, path) == "inkwell_either", path


def stats(documents: int, changed: str | None = "2026-11-30T03:21:42.944Z", **more: Any) -> Json:
    return {"documents": documents, "changed": changed, "fingerprint": "f", **more}


@pytest.mark.parametrize(
    ("here", "there", "last", "wanted"),
    [
        (stats(5), None, None, COPY),
        (stats(5), stats(5), None, COPY),
        (stats(5), stats(5), mark(stats(5)), UNCHANGED),
        (stats(5), None, mark(stats(5)), COPY),
        (stats(5), stats(4), mark(stats(5)), COPY),
        (stats(5, "later"), stats(5), mark(stats(5)), COPY),
        (stats(5, None), stats(5), mark(stats(5, None)), COPY),
        (stats(0), stats(9), None, COPY),
        (stats(4), stats(10), None, SHRUNK),
        (stats(5), stats(10), None, COPY),
        (stats(5, database={"up": True}), None, None, ELSEWHERE),
    ],
)
def test_what_is_done_with_a_collection(
    here: Json, there: Json | None, last: Json | None, wanted: str
) -> None:
    assert decide(here, there, last) == wanted
