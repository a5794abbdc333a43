"""Keys that may use some collections only: on every route, in lists, by aliases, and in the audit."""

import json
from pathlib import Path

import httpx
import pytest

from server.api.operation import CollectionOperation
from server.app import every_operation
from server.auth.keys import Key, add_key, new_key, read_keys
from server.config import Config
from server.errors import BadSettings
from server.inference.model import Model
from server.telemetry.metrics import Metrics
from tests.api.test_collections import check_refused, fill, found
from tests.support.clients import run

OPERATIONS = every_operation(Config(), Metrics())
ALL = "embed,search,write,admin"


def holder(path: Path, name: str, collections: str | None) -> dict[str, str]:
    secret, key = new_key(name, ALL, collections=collections)
    add_key(path, key)
    return {"x-api-key": secret}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, dict[str, str]]:
    path = tmp_path / "keys"
    return {
        "all": holder(path, "all", None),
        "laws": holder(path, "laws", "laws, laws-*,法*"),
        "none": holder(path, "none", "elsewhere"),
        "default": holder(path, "default", "default*"),
    }


async def filled(client: httpx.AsyncClient, keys: dict[str, dict[str, str]]) -> None:
    client.headers.update(keys["all"])
    for name in ("laws", "laws-2", "secret"):
        assert (await client.post("/collections", json={"name": name})).status_code == 201
        await fill(client, f"/collections/{name}", **{name: "墨池笔纸"})
    for alias, to in (("laws-now", "secret"), ("current", "laws")):
        answer = await client.put(f"/aliases/{alias}", json={"collection": to})
        assert answer.status_code == 200


def path_of(operation: CollectionOperation, collection: str) -> str:
    return operation.path.replace(":path", "").format(
        collection=collection, id="a", alias=collection
    )


def body_of(path: str) -> object:
    if path == "/collections":
        return {"name": "secret"}
    if path.endswith("/search"):
        return {"query": "墨池"}
    if path.endswith("/rename"):
        return {"name": "laws-3"}
    if path.startswith("/aliases"):
        return {"collection": "secret"}
    return {"documents": [{"id": "x", "text": "墨"}]} if path.endswith("/documents") else {}


async def asked(
    client: httpx.AsyncClient, each: CollectionOperation, collection: str, headers: dict[str, str]
) -> httpx.Response:
    path = path_of(each, collection)
    if each.is_file:
        return await client.request(
            each.method,
            path,
            params={"name": "a.txt"} if path.endswith("/files") else {},
            content="墨".encode(),
            headers={**headers, "content-type": "application/octet-stream"},
        )
    body = body_of(path) if each.method not in ("GET", "DELETE") else None
    return await client.request(each.method, path, json=body, headers=headers)


def test_a_refusal_of_the_default_collection_says_that_it_is_empty(
    toy_model: Model, tmp_path: Path, keys: dict[str, dict[str, str]]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client, keys)
        client.headers.update(keys["default"])
        check_refused(
            await client.post("/backup", json={}), 404, "collection_not_found", "holds nothing yet"
        )
        answer = await client.put("/aliases/default-2", json={"collection": "default"})
        check_refused(answer, 404, "collection_not_found", "create it first")
        answer = await client.post("/collections/default-3/backup", json={})
        check_refused(answer, 404, "collection_not_found", "this server has none")

    run(test, toy_model, keys=tmp_path / "keys")


def test_every_route_to_a_collection_is_refused_to_a_key_without_the_right(
    toy_model: Model, tmp_path: Path, keys: dict[str, dict[str, str]]
) -> None:
    scoped = [each for each in OPERATIONS if each.needs in ("search", "write", "admin")]
    lists = ("/collections", "/aliases")

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client, keys)
        before = (await client.get("/collections")).json()
        for each in scoped:
            if each.method == "GET" and each.path in lists:
                continue
            for name in ("secret", "laws-now", "missing"):
                answer = await asked(client, each, name, keys["laws"])
                if each.method == "GET" and "{alias}" in each.path:
                    check_refused(answer, 404, "collection_not_found")
                    continue
                check_refused(answer, 403, "forbidden", "key 'laws' may not use collection")
                if "{collection}" in each.path:
                    assert repr(name) in answer.json()["error"]["message"]
                assert "'secret'" not in answer.text or name == "secret" or "{coll" not in each.path
        assert (await client.get("/collections")).json() == before
        assert (await client.get("/aliases/laws-now")).json()["collection"] == "secret"
        metrics = await client.get("/metrics", headers=keys["all"])
        assert metrics.status_code == 403

    run(test, toy_model, keys=tmp_path / "keys")


def test_key_uses_what_it_may_and_sees_nothing_else(
    toy_model: Model, tmp_path: Path, keys: dict[str, dict[str, str]]
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await filled(client, keys)
        client.headers.update(keys["laws"])
        listed = (await client.get("/collections")).json()["collections"]
        assert [each["name"] for each in listed] == ["laws", "laws-2"]
        assert (await client.get("/aliases")).json() == {
            "aliases": [{"alias": "current", "collection": "laws"}]
        }
        for name in ("laws", "laws-2", "current"):
            own = "laws" if name == "current" else name
            assert await found(client, {"query": "墨池"}, f"/collections/{name}") == [own]
        missing = await client.get("/collections/laws-9")
        check_refused(missing, 404, "collection_not_found", "'laws', 'laws-2'")
        assert "secret" not in missing.text
        missing = await client.put("/aliases/laws-a", json={"collection": "laws-9"})
        check_refused(missing, 404, "collection_not_found", "'laws-2'")
        assert "secret" not in missing.text
        # An alias of a permitted collection under a name of others, and the other way round.
        for alias, to in (("default", "laws"), ("laws-a", "secret"), ("laws-now", "laws")):
            answer = await client.put(f"/aliases/{alias}", json={"collection": to})
            check_refused(answer, 403, "forbidden")
        check_refused(await client.delete("/aliases/laws-now"), 403, "forbidden")
        renamed = await client.post("/collections/laws-2/rename", json={"name": "mine"})
        check_refused(renamed, 403, "forbidden", "'mine'")
        renamed = await client.post("/collections/laws-2/rename", json={"name": "laws-now"})
        check_refused(renamed, 403, "forbidden", "'laws-now'")
        assert "secret" not in renamed.text
        # Several collections in one body: each of them counts.
        for names in (["laws", "secret"], ["laws-now"], ["secret"]):
            body = {"query": "墨池", "collections": names}
            for path in ("/search", "/collections/laws/search"):
                refused = await client.post(path, json=body)
                assert refused.status_code in (400, 403) and not refused.json().get("hits"), names
        body = {"query": "墨池", "collections": ["laws", "laws-2"]}
        assert len(await found(client, body)) == 2
        # A pattern matches names in their composed form, with every script.
        assert (await client.post("/collections", json={"name": "法律"})).status_code == 201
        assert (await client.delete("/collections/法律")).status_code == 200
        said = (await client.get("/key")).json()["collections"]
        assert said == ["laws", "laws-*", "法*"]
        nothing = (await client.get("/collections", headers=keys["none"])).json()
        assert nothing == {"collections": [], "damaged": []}

    run(test, toy_model, keys=tmp_path / "keys")


def test_audit_names_the_collection_that_was_used(
    toy_model: Model, tmp_path: Path, keys: dict[str, dict[str, str]]
) -> None:
    file = tmp_path / "audit"

    async def test(client: httpx.AsyncClient) -> None:
        await filled(client, keys)
        await client.get("/collections/current/stats")
        await client.get("/stats")
        await client.get("/collections/secret/stats", headers=keys["laws"])
        await client.post("/collections", json={"name": "more"})
        await client.get("/collections")

    run(test, toy_model, keys=tmp_path / "keys", audit=file)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()][-5:]
    named = [(line.get("collection"), line.get("alias"), line["status"]) for line in lines]
    assert named == [
        ("laws", "current", 200),
        ("default", None, 200),
        ("secret", None, 403),
        ("more", None, 201),
        (None, None, 200),
    ]


def test_patterns_of_a_key_are_simple_and_bounded(tmp_path: Path) -> None:
    key = Key("a", "ab" * 32, ["search"], collections=["laws", "news-*", "*"][:2])
    assert key.may_use("laws") and key.may_use("news-2") and key.may_use("news-")
    assert not key.may_use("laws2") and not key.may_use("news") and not key.may_use("News-2")
    assert Key("a", "ab" * 32, []).may_use("anything")
    assert not Key("a", "ab" * 32, [], collections=[]).may_use("anything")
    assert Key("a", "ab" * 32, [], collections=["*"]).may_use("anything")
    for text in ("", "a,,b", "a*b", "**", "a b", "a/b", "x" * 66, ",".join("a" * 101)):
        with pytest.raises(BadSettings, match="collections"):
            new_key("a", "search", collections=text)
    path = tmp_path / "keys"
    for value in ('"laws"', '["a*b"]', '[""]', "[1]", '["a\\n"]', json.dumps(["a"] * 101)):
        line = f'{{"name":"a","sha256":"{"ab" * 32}","scopes":[],"collections":{value}}}'
        path.write_text(line, encoding="utf-8")
        with pytest.raises(BadSettings, match="line 1"):
            read_keys(path)
