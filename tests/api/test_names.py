"""Aliases and renaming over HTTP, with real collections on the disk."""

import asyncio
from pathlib import Path

import httpx
import pytest

from server.inference.model import Model
from server.store.folder import DataFolder
from tests.api.test_collections import check_refused, fill, found
from tests.support.clients import run
from tests.support.processes import serving


async def created(client: httpx.AsyncClient, *names: str) -> None:
    for name in names:
        answer = await client.post("/collections", json={"name": name})
        assert answer.status_code == 201, answer.text
        await fill(client, f"/collections/{name}", **{name: "墨池笔纸"})


async def alias(client: httpx.AsyncClient, name: str, collection: str) -> httpx.Response:
    return await client.put(f"/aliases/{name}", json={"collection": collection})


def test_alias_works_wherever_a_name_does_and_is_switched_at_once(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue", "green")
        answer = await alias(client, "live", "blue")
        assert (answer.status_code, answer.json()) == (200, {"alias": "live", "collection": "blue"})
        live = "/collections/live"
        for name in ("blue", "green"):
            await alias(client, "live", name)
            assert await found(client, {"query": "墨池"}, live) == [name]
            assert (await client.get(f"{live}/stats")).json()["name"] == name
            assert (await client.get(f"{live}/documents/{name}")).status_code == 200
        await fill(client, live, more="云雨")
        assert (await client.get("/collections/green/documents/more")).status_code == 200
        assert (await client.get("/aliases/live")).json()["collection"] == "green"
        listed = (await client.get("/aliases")).json()
        assert listed == {"aliases": [{"alias": "live", "collection": "green"}]}
        names = [each["name"] for each in (await client.get("/collections")).json()["collections"]]
        assert names == ["blue", "green"]
        assert (await client.delete("/aliases/live")).json() == {"removed": "live"}
        for path in (f"{live}/stats", "/aliases/live"):
            check_refused(await client.get(path), 404, "collection_not_found", "live")
        check_refused(await client.delete("/aliases/live"), 404, "collection_not_found")

    run(test, toy_model)


def test_alias_of_the_default_name_takes_paths_without_a_name(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue")
        assert (await alias(client, "default", "blue")).status_code == 200
        assert await found(client, {"query": "墨池"}) == ["blue"]
        await fill(client, more="云雨")
        stats = (await client.get("/stats")).json()
        assert (stats["name"], stats["documents"]) == ("blue", 2)

    run(test, toy_model)


def test_names_that_clash_are_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue", "green")
        await alias(client, "live", "blue")
        check_refused(await alias(client, "green", "blue"), 409, "already_exists", "'green'")
        check_refused(await alias(client, "x", "live"), 400, "invalid_request", "'blue'")
        check_refused(await alias(client, "x", "gone"), 404, "collection_not_found", "'gone'")
        check_refused(await alias(client, "x", "default"), 404, "collection_not_found", "create")
        check_refused(await alias(client, ".x", "blue"), 400, "invalid_request", ".x")
        again = await client.post("/collections", json={"name": "live"})
        check_refused(again, 409, "already_exists", "alias of collection 'blue'")
        for path, name in (
            ("blue", "green"),
            ("blue", "blue"),
            ("green", "live"),
            ("live", "other"),
        ):
            answer = await client.post(f"/collections/{path}/rename", json={"name": name})
            check_refused(answer, 409, "already_exists")
        answer = await client.post("/collections/gone/rename", json={"name": "x"})
        check_refused(answer, 404, "collection_not_found")
        answer = await client.post("/collections/blue/rename", json={"name": "a/b"})
        check_refused(answer, 400, "invalid_request")
        check_refused(await client.delete("/collections/live"), 409, "already_exists", "own name")
        check_refused(await client.delete("/collections/blue"), 409, "already_exists", "'live'")
        assert await found(client, {"query": "墨池"}, "/collections/live") == ["blue"]

    run(test, toy_model)


def test_alias_becomes_the_name_of_its_collection(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue")
        await alias(client, "live", "blue")
        body = {"name": "live", "keep_alias": True}
        assert (await client.post("/collections/blue/rename", json=body)).status_code == 200
        assert (await client.get("/aliases")).json()["aliases"] == [
            {"alias": "blue", "collection": "live"}
        ]
        for name in ("blue", "live"):
            assert await found(client, {"query": "墨池"}, f"/collections/{name}") == ["blue"]

    run(test, toy_model)


@pytest.mark.parametrize("keep", [False, True])
def test_renamed_collection_keeps_its_documents_and_aliases(toy_model: Model, keep: bool) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue")
        await alias(client, "live", "blue")
        body = {"name": "sky", "keep_alias": keep}
        # Requests that arrive meanwhile wait, and find it under the name that they gave or not at all.
        renaming = asyncio.ensure_future(client.post("/collections/blue/rename", json=body))
        searches = [found(client, {"query": "墨池"}, "/collections/live") for _ in range(4)]
        assert await asyncio.gather(*searches) == [["blue"]] * 4
        answer = await renaming
        assert answer.status_code == 200 and answer.json()["name"] == "sky"
        for name in ("sky", "live", *(["blue"] if keep else [])):
            assert await found(client, {"query": "墨池"}, f"/collections/{name}") == ["blue"]
        if not keep:
            assert (await client.get("/collections/blue")).status_code == 404
            await created(client, "blue")
        await fill(client, "/collections/sky", more="云雨")
        assert (await client.post("/collections/sky/reindex", json={})).status_code == 202

    run(test, toy_model)


def test_names_that_change_at_the_same_time_are_all_kept(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await created(client, "blue", "green", "red")

        async def renamed(name: str, new: str) -> None:
            for old, to in ((name, new), (new, name)) * 3:
                body = {"name": to, "keep_alias": True}
                answer = await client.post(f"/collections/{old}/rename", json=body)
                assert answer.status_code == 200, answer.text

        async def set_aliases() -> None:
            for each in range(12):
                assert (await alias(client, f"alias-{each}", "red")).status_code == 200
            assert (await client.delete("/aliases/alias-0")).status_code == 200

        await asyncio.gather(renamed("blue", "sky"), renamed("green", "leaf"), set_aliases())
        listed = (await client.get("/aliases")).json()["aliases"]
        expected = {f"alias-{each}": "red" for each in range(1, 12)}
        expected |= {"sky": "blue", "leaf": "green"}
        assert {each["alias"]: each["collection"] for each in listed} == expected

    run(test, toy_model)


def test_names_survive_a_kill(toy_artifact: Path, tmp_path: Path) -> None:
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        client.post("/collections", json={"name": "blue"})
        documents = {"documents": [{"id": "a", "text": "墨池"}]}
        assert client.post("/collections/blue/documents", json=documents).status_code == 200
        assert client.put("/aliases/live", json={"collection": "blue"}).status_code == 200
        body = {"name": "sky", "keep_alias": True}
        assert client.post("/collections/blue/rename", json=body).status_code == 200
        server.process.kill()
        server.wait()
    folder = DataFolder(tmp_path / "data")
    assert folder.aliases == {"live": "sky", "blue": "sky"}
    assert folder.collections["sky"].count == 1
    folder.close()
