"""A server without collections: it computes, needs no file that it may write, and refuses documents by name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.api.operation import CollectionOperation
from server.app import collection_operations
from server.config import Config
from server.doctor.examine import examine
from server.doctor.facts import gather
from server.errors import BadSettings
from tests.support.processes import Server, serving
from tests.support.toys import toy_texts

OFF = ("--collections", "off")
TEXT = {"texts": toy_texts(1)}


@pytest.fixture(scope="module")
def node(toy_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(toy_artifact, tmp_path_factory.mktemp("node"), *OFF) as server:
        yield server


@pytest.fixture
def client(node: Server) -> Iterator[httpx.Client]:
    with node.client() as client:
        yield client


def test_it_computes_and_is_ready_without_a_data_folder(
    client: httpx.Client, node: Server, tmp_path: Path
) -> None:
    assert client.get("/ready").json() == {"status": "ready", "model": "toy"}
    assert client.get("/health").json() == {"status": "ok"}
    assert len(client.post("/embed", json=TEXT).json()["vectors"]) == 1
    assert node.metric("ready") == 1.0
    assert not (node.log.parent / "data").exists()


def test_collections_that_it_leaves_alone_are_reported(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        client.post("/collections", json={"name": "laws"}).raise_for_status()
    with serving(toy_artifact, tmp_path, *OFF) as server:
        assert "has collections, and this server answers none" in server.log.read_text()


def test_a_vector_database_beside_it_is_refused() -> None:
    with pytest.raises(BadSettings, match="nothing to keep in it"):
        Config(collections="off", vector_database="q=qdrant://127.0.0.1")


@pytest.mark.parametrize("operation", collection_operations(), ids=lambda each: each.path)
def test_every_operation_of_collections_is_refused_by_name(
    client: httpx.Client, operation: CollectionOperation
) -> None:
    method, path = operation.method, operation.path
    path = path.replace("{collection}", "laws").replace("{id:path}", "a").replace("{alias}", "b")
    for kind in ("application/json", "application/x-ndjson", "application/octet-stream"):
        refused = client.request(method, path, content=b"{}", headers={"content-type": kind})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (404, "task_not_served"), kind
        assert "keeps no collections" in error["message"]


def test_its_description_and_its_root_name_only_what_it_does(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/embed" in paths and "/ready" in paths
    assert not {each.path for each in collection_operations()} & paths.keys()
    browser = client.get("/", headers={"accept": "text/html"})
    assert browser.headers["content-type"].startswith("text/plain")


def test_workers_of_a_node_compute_too(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path, *OFF, "--workers", "2") as server:
        for _ in range(4):
            with server.client() as client:
                assert client.post("/embed", json=TEXT).status_code == 200
                assert client.get("/ready").status_code == 200
                assert client.get("/collections").status_code == 404


def test_it_starts_where_nothing_can_be_written(toy_artifact: Path, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    sealed = 'mount -o remount,bind,ro / && ! touch /tmp/sealed 2>&- && exec "$@"'
    prefix = (unshare, "--mount", "--map-root-user", "--", "sh", "-c", sealed, "sh")
    with (
        serving(toy_artifact, tmp_path, *OFF, prefix=prefix) as server,
        server.client() as client,
    ):
        assert client.post("/embed", json=TEXT).status_code == 200
        assert json.loads(client.get("/ready").content)["status"] == "ready"


def test_doctor_asks_for_no_disk(toy_artifact: Path, tmp_path: Path) -> None:
    config = Config(collections="off", data=tmp_path / "none")
    found = {
        each.subject: each for each in examine(gather(config)) if each.subject in ("disk", "data")
    }
    assert {each.level for each in found.values()} == {"ok"}
    assert all("no data folder is used" in each.found.english for each in found.values())


def test_another_word_is_refused_with_those_that_are_allowed() -> None:
    with pytest.raises(BadSettings, match="collections 'none' is not one of"):
        Config(collections="none")
