"""Paths are matched whole, and paths of other servers' dialects also with spare slashes."""

from urllib.parse import quote

import httpx
import pytest

from server.inference.model import Model
from tests.support.clients import run
from tests.support.dialects import check_error

# Ids of which each is a beginning of another, or would be if a path were cut at a line feed.
IDS = ["INV-1", "INV-1\n", "INV-1\r\n", "INV-1\nx", "\n", "a/b", "a/b/", "a//b", "\ufffd", " ", "%"]


def test_an_id_is_taken_whole(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        documents = [{"id": id, "text": f"the document {id!r}"} for id in IDS]
        assert (await client.post("/documents", json={"documents": documents})).status_code == 200
        for id in IDS:
            found = await client.get("/documents/" + quote(id, safe="/"))
            assert (found.status_code, found.json().get("id")) == (200, id)
        left = set(IDS)
        for id in reversed(IDS):
            path = "/collections/default/documents/" + quote(id, safe="/")
            assert (await client.delete(path)).json() == {"removed": 1}
            left.discard(id)
            page = (await client.get("/documents")).json()["documents"]
            assert {each["id"] for each in page} == left

    run(test, toy_model)


def test_a_path_that_is_not_utf8_reaches_no_document(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"documents": [{"id": "a\ufffd", "text": "天气"}]}
        assert (await client.post("/documents", json=body)).status_code == 200
        for path in ("/documents/a%FF", "/documents/a%FE", "/documents/a%ED%A0%80"):
            said = check_error("native", await client.delete(path), 404, "not_found")
            assert "not UTF-8" in said
        assert (await client.get("/documents/a%EF%BF%BD")).status_code == 200

    run(test, toy_model)


PATHS = {
    "/metrics": "native",
    "/health": "native",
    "/documents": "native",
    "/collections": "native",
    "/collections/default": "native",
    "/collections/default/documents": "native",
    "/openapi.json": "native",
    "/v1/models": "openai",
    "/v1/models/toy": "openai",
    "/info": "tei",
    "/api/tags": "ollama",
}


@pytest.mark.parametrize("ending", ["%0A", "%0D%0A", "%00", "%20", "%0Ax"])
def test_a_longer_path_is_another_path(ending: str, toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path, dialect in PATHS.items():
            code = {"/v1/models/toy": "model_not_found", "/collections/default": None}
            answer = await client.get(path + ending)
            shape = "native" if path == "/info" else dialect
            check_error(shape, answer, 404, code.get(path, "not_found"))

    run(test, toy_model)


@pytest.mark.parametrize("path", ["/v1/embeddings/", "/v1//embeddings", "/v1///embeddings//"])
def test_spare_slashes_change_nothing_in_dialects(path: str, toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"input": "天气"}
        plain = (await client.post("/v1/embeddings", json=body)).json()
        assert (await client.post(path, json=body)).json() == plain
        check_error("openai", await client.get(path), 405)
        assert 'route="/v1/embeddings",status="200"} 2.0' in (await client.get("/metrics")).text

    run(test, toy_model)


def test_spare_slashes_are_another_path_elsewhere(toy_model: Model) -> None:
    """`/documents/` with an empty id must not list the documents."""

    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/health/", "/metrics/", "/documents/", "/collections/", "/search/"):
            assert (await client.get(path)).status_code == 404

    run(test, toy_model)
