"""What is possible with a collection in a vector database, by every operation and option that there is."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.description.names import COLLECTION
from server.api.openapi import PARAMETER, examples
from server.api.searching.options import OptionsRequest
from server.app import every_operation
from server.collections.external.abilities import OPERATIONS, SEARCH
from server.config import Config
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.collections.external.test_collection_in_qdrant import DOCUMENTS, over, posted

pytest.importorskip("qdrant_client", reason="the client of Qdrant is not installed")

# A value with which each option asks for something.
OPTIONS: dict[str, Any] = {
    "offset": 1,
    "cursor": "",
    "explain": True,
    "parts": 2,
    "include_document": True,
    "include_vectors": True,
    "include_headings": True,
    "like": {"ids": ["1"]},
    "group_by": {"key": "n"},
    "sort": {"by": [{"key": "n"}]},
    "diversity": {"candidates": 20},
    "facets": ["n"],
}
SECTION = {"a": ["# Ink", "", "墨池 " * 20, "", "## Paper", "", "笔纸 " * 20, "", "山川 " * 20]}


def inside() -> list[tuple[str, str]]:
    """Return method and path, behind the collection's name, of every operation in a collection."""
    return [
        (each.method, PARAMETER.sub(r"{\1}", each.path.removeprefix(COLLECTION)))
        for each in every_operation(Config(), Metrics())
        if each.path.startswith(f"{COLLECTION}/")
    ]


def test_operations_are_possible_or_refused_as_the_table_says(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": [*DOCUMENTS, {"id": "a", "text": "墨"}]})
        refused = set()
        for method, path in inside():
            place = COLLECTION + path.replace("{id}", "{id:path}")
            bodies: list[Any] = list(examples(place, method).values()) or [None]
            if method == "DELETE" and path == "":
                continue
            more: dict[str, Any] = {"json": bodies[0]} if bodies[0] is not None else {}
            if path in ("/files", "/restore"):
                more = {"content": b"text", "headers": {"content-type": "application/octet-stream"}}
            named = path.replace("{id}", "a") + ("?name=a.txt" if path == "/files" else "")
            reply = await client.request(method, f"/collections/far{named}", **more)
            said = reply.json()["error"]["message"] if reply.status_code >= 400 else ""
            if path == "/restore":
                assert reply.status_code in (400, 409), said
                refused.add(f"{method} {path}")
            elif "vector database 'main'" in said:
                assert reply.status_code == 400
                refused.add(f"{method} {path}")
            else:
                assert reply.status_code < 400, (method, path, said)
            if method == "DELETE":
                await posted(client, "/documents", {"documents": [{"id": "a", "text": "墨"}]})
        possible = {f"{method} {path}" for method, path in inside()} - refused
        assert possible == OPERATIONS

    over(test, toy_model, tmp_path)


@pytest.mark.parametrize("option", OptionsRequest.__struct_fields__)
def test_options_of_a_search_are_answered_or_refused(
    toy_model: Model, tmp_path: Path, option: str
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        body = {"query": "墨池笔纸", option: OPTIONS[option]}
        if option == "like":
            body = {"like": OPTIONS["like"]}
        reply = await client.post("/collections/far/search", json=body)
        if option in SEARCH:
            assert reply.status_code == 400
            error = reply.json()["error"]["message"]
            assert f'"{option}" is not possible in collection' in error
            assert SEARCH[option] in error
        else:
            assert reply.status_code == 200, reply.text

    over(test, toy_model, tmp_path)


@pytest.mark.parametrize("query", ['"山川湖海"', "墨池 -山川", '墨池 -"山川"'])
def test_phrases_and_exclusions_are_refused_where_words_are_searched(
    toy_model: Model, tmp_path: Path, query: str
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        for mode in ("lexical", "hybrid"):
            body = {"query": query, "mode": mode}
            reply = await client.post("/collections/far/search", json=body)
            assert reply.status_code == 400, reply.text
            assert (
                "in a query is not possible in collection 'far'" in reply.json()["error"]["message"]
            )
        await posted(client, "/search", {"query": query, "mode": "dense"})

    over(test, toy_model, tmp_path)


def test_page_shows_the_options_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs/en/how-to/vector-database.md").read_text("utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| `cursor`"))
    assert row.removeprefix("| ").removesuffix(" | no |") == ", ".join(f"`{key}`" for key in SEARCH)


def test_chunks_of_a_document_are_one_hit(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"name": "cut", "database": "main", "chunks": {"size": 16, "overlap": 2}}
        assert (await client.post("/collections", json=body)).status_code == 201
        text = "\n".join(SECTION["a"])
        documents = [{"id": "a", "text": text, "title": "标题"}]
        documents += [{"id": str(n), "text": f"春夏秋冬 {n}"} for n in range(3)]

        async def search(**more: Any) -> Any:
            body = {"query": "墨池", "top_k": 4, **more}
            reply = await client.post("/collections/cut/search", json=body)
            assert reply.status_code == 200, reply.text
            return reply.json()["hits"]

        stored = await client.post("/collections/cut/documents", json={"documents": documents})
        assert stored.json()["stored"] == 4
        hits = await search()
        assert sorted(hit["id"] for hit in hits) == ["0", "1", "2", "a"]
        assert [hit["id"] for hit in await search(mode="lexical")] == ["a"]
        (long,) = (hit for hit in hits if hit["id"] == "a")
        begin, end = long["part"]["begin"], long["part"]["end"]
        assert long["text"] == text[begin:end] and not long["part"]["whole"]
        again = await search(parts=3, include_document=True, include_headings=True)
        (long,) = (hit for hit in again if hit["id"] == "a")
        assert long["document"] == text
        assert len(long["parts"]) == 3
        assert long["parts"][0]["text"] == long["text"]
        scores = [part["score"] for part in long["parts"]]
        assert scores == sorted(scores, reverse=True)
        assert any(part["headings"] for part in long["parts"])
        hits = await search(offset=2)
        assert len(hits) == 2
        best = (await search())[0]["score"]
        assert len(await search(min_score=best)) >= 1
        assert await search(min_score=1.1) == []

    over(test, toy_model, tmp_path)


def test_hybrid_takes_weights_and_several_collections_search_by_meaning(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        weights = {"weights": {"dense": 1, "lexical": 5}}
        found = await posted(client, "/search", {"query": "墨池", "mode": "hybrid", **weights})
        assert {hit["id"] for hit in found["hits"][:2]} == {"0", "4"}
        near = {"documents": [{"id": "near", "text": "墨池"}]}
        assert (await client.post("/documents", json=near)).status_code == 200
        both = {"query": "墨池", "collections": ["far", "default"]}
        hits = (await client.post("/search", json=both)).json()["hits"]
        assert {hit["collection"] for hit in hits} == {"far", "default"}
        refused = await client.post("/search", json={**both, "mode": "hybrid"})
        assert refused.status_code == 400
        assert 'mode "hybrid" with "collections"' in refused.json()["error"]["message"]

    over(test, toy_model, tmp_path)


def test_hits_are_reranked_and_marked(toy_model: Model, toy_scorer: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await posted(client, "/documents", {"documents": DOCUMENTS})
        body = {"query": "墨池", "rerank": {}, "highlight": True, "top_k": 3}
        hits = (await posted(client, "/search", body))["hits"]
        scores = [hit["rerank_score"] for hit in hits]
        assert len(hits) == 3 and scores == sorted(scores, reverse=True)
        assert any(hit["highlights"] for hit in hits)

    over(test, toy_model, tmp_path, others=[toy_scorer])


def test_given_vectors_are_kept(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = {"name": "own", "database": "main", "embedder": "mine", "dimension": 3}
        assert (await client.post("/collections", json=body)).status_code == 201
        documents = [
            {"id": "a", "text": "墨池", "vector": [3, 0, 0]},
            {"id": "b", "vector": [0, 1, 0], "metadata": {"image": "b.png"}},
            {
                "id": "c",
                "text": "山川。湖海。",
                "parts": [[0, 3], [3, 6]],
                "vectors": [[0, 0, 1], [0, 1, 1]],
            },
        ]
        path = "/collections/own/documents"
        for stored in (3, 0):
            reply = await client.post(path, json={"documents": documents, "embedder": "mine"})
            assert reply.json()["stored"] == stored, reply.text
        # Whatever their lengths, scores are cosines.
        search = {"vector": [0, 7, 0], "top_k": 2}
        hits = (await client.post("/collections/own/search", json=search)).json()["hits"]
        assert [(hit["id"], hit["score"]) for hit in hits] == [
            ("b", pytest.approx(1)),
            ("c", pytest.approx(0.5**0.5)),
        ]
        patch = {"metadata": {"image": "c.png"}}
        assert (await client.patch(f"{path}/b", json=patch)).status_code == 200
        got = await client.post(f"{path}/get", json={"ids": ["b", "c"], "include_vectors": True})
        b, c = got.json()["documents"]
        assert b["metadata"] == {"image": "c.png"} and b["vector"] == [0, 1, 0]
        assert c["parts"] == [[0, 3], [3, 6]]

    over(test, toy_model, tmp_path)


def test_lines_and_files_are_stored(toy_model: Model, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        lines = "".join(json.dumps({"id": str(n), "text": f"墨池 {n}"}) + "\n" for n in range(5))
        reply = await client.post(
            "/collections/far/documents",
            content=lines.encode(),
            headers={"content-type": "application/x-ndjson"},
        )
        assert (reply.json()["stored"], "queued" in reply.json()) == (5, False)
        reply = await client.post(
            "/collections/far/files?name=a.txt",
            content="山川\n湖海".encode(),
            headers={"content-type": "application/octet-stream"},
        )
        assert reply.json()["stored"] == reply.json()["documents"] > 0
        assert "queued" not in reply.json()
        count = await posted(client, "/documents/count", {})
        assert count["count"] == 5 + reply.json()["documents"]

    over(test, toy_model, tmp_path)


def test_every_option_has_a_value_above() -> None:
    assert set(OPTIONS) == set(OptionsRequest.__struct_fields__)
