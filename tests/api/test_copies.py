"""Backups and restoring over HTTP: consistent, checked, bounded, and nothing replaced until all is sound."""

import asyncio
import io
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.collections.administration.backup import RUNNING
from server.collections.live_collection import LiveCollection
from server.collections.reading.opened import opened
from server.config import Config
from server.inference.model import Model
from server.store.folder import DataFolder
from server.store.upkeep.maintenance import backup
from server.store.upkeep.restoring import restore
from server.types import Vectors
from tests.api.test_collections import check_refused, fill, found
from tests.store.test_folder import entries, filled
from tests.support.clients import Test, lifespan, run, stateful
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.processes import serving

OCTETS = {"content-type": "application/octet-stream"}


def run_over(data: Path, test: Test, model: Model) -> None:
    """Call `test` with a client of an app over this data folder."""

    async def served() -> None:
        app = create_app([model], Config(lanes=1), DataFolder(data))
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://inkwell") as client:
                await test(client)

    asyncio.run(asyncio.wait_for(served(), PATIENCE_S))


async def restored(
    client: httpx.AsyncClient, name: str, content: Any, replace: bool = False
) -> httpx.Response:
    params = {"replace": "true"} if replace else {}
    path = f"/collections/{name}/restore"
    return await client.post(path, params=params, content=content, headers=OCTETS)


async def copy_of(client: httpx.AsyncClient, name: str) -> bytes:
    reply = await client.post(f"/collections/{name}/backup", json={})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/octet-stream"
    return reply.content


def test_backup_is_the_file_of_the_command_and_makes_the_same_collection(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "laws"})
        await fill(client, "/collections/laws")
        content = await copy_of(client, "laws")
        (tmp_path / "copy").write_bytes(content)
        assert restore(tmp_path / "data", tmp_path / "copy", None, force=False).documents == 3
        with closing(DataFolder(tmp_path / "data")) as folder:
            assert sorted(folder.collections["laws"].documents.ids()) == ["a", "b", "c"]
        await fill(client, "/collections/laws", d="云雨")

        async def pieces() -> AsyncIterator[bytes]:
            for begin in range(0, len(content), 10_000):
                yield content[begin : begin + 10_000]

        answer = await restored(client, "copy", pieces())
        assert answer.status_code == 201, answer.text
        assert (answer.json()["name"], answer.json()["documents"]) == ("copy", 3)
        query = {"query": "墨池笔纸", "mode": "hybrid"}
        assert set(await found(client, query, "/collections/copy")) == {"a", "b", "c"}
        # The restored one is written and copied again.
        await fill(client, "/collections/copy", e="云雨")
        assert await copy_of(client, "copy")
        check_refused(await restored(client, "laws", content), 409, "already_exists", "'laws'")
        answer = await restored(client, "laws", content, replace=True)
        assert answer.status_code == 201 and answer.json()["documents"] == 3
        assert (await client.get("/collections/laws/documents/d")).status_code == 404
        await fill(client, "/collections/laws", d="云雨")

    run(test, toy_model)


def test_default_collection_and_aliases(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        check_refused(await client.post("/backup", json={}), 404, "collection_not_found", "nothing")
        await fill(client)
        content = (await client.post("/backup", json={})).content
        await client.put("/aliases/live", json={"collection": "default"})
        assert len(await copy_of(client, "live")) == len(content)
        answer = await restored(client, "live", content, replace=True)
        check_refused(answer, 409, "already_exists", "alias of collection 'default'")
        # Aliases lead to what takes the place of their collection.
        assert (await restored(client, "default", content, replace=True)).status_code == 201
        assert len(await found(client, {"query": "墨池"}, "/collections/live")) == 3

    run(test, toy_model)


def test_list_does_not_go_on_in_another_collection_than_it_began_in(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "laws"})
        await fill(client, "/collections/laws")
        await fill(client, "/collections/laws", d="云雨")
        await fill(client, "/collections/default")
        await client.put("/aliases/live", json={"collection": "laws"})
        # The other database numbers from the beginning, so a number alone would leave out documents.
        await client.delete("/collections/laws/documents/a")

        async def page(**params: int | str) -> httpx.Response:
            return await client.get("/collections/live/documents", params={"limit": 2, **params})

        async def reindexed() -> None:
            assert (await client.post("/collections/laws/reindex", json={})).status_code == 202
            while (await client.get("/collections/laws")).json()["reindexing"] is not None:
                await asyncio.sleep(0.01)

        async def replaced() -> None:
            content = await copy_of(client, "laws")
            assert (await restored(client, "laws", content, replace=True)).status_code == 201

        async def switched() -> None:
            await client.put("/aliases/live", json={"collection": "default"})

        async def renamed() -> None:
            body = {"name": "statutes"}
            assert (await client.post("/collections/laws/rename", json=body)).status_code == 200
            await client.post("/collections/statutes/rename", json={"name": "laws"})

        for change, goes_on in (
            (renamed, True),
            (reindexed, False),
            (replaced, False),
            (switched, False),
        ):
            first = (await page()).json()
            assert int(first["next"]) < 1 << 53
            await change()
            answer = await page(after=first["next"])
            if goes_on:
                assert [each["id"] for each in answer.json()["documents"]] == ["d"]
            else:
                check_refused(answer, 400, "invalid_request", "begin the list again")
        # A number alone is of any database, as before.
        assert [each["id"] for each in (await page(after=1)).json()["documents"]] == ["b", "c"]

    run(test, toy_model)


def test_backup_of_a_collection_that_is_renamed_while_it_begins(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "laws"})
        await fill(client, "/collections/laws")
        real = LiveCollection.read
        renamed: list[int] = []

        async def then_renamed(live: LiveCollection, call: Callable[[], Any]) -> Any:
            result = await real(live, call)
            if not renamed:
                body = {"name": "statutes"}
                answer = await client.post("/collections/laws/rename", json=body)
                renamed.append(answer.status_code)
            return result

        monkeypatch.setattr(LiveCollection, "read", then_renamed)
        content = await copy_of(client, "laws")
        assert renamed == [200]
        assert (await restored(client, "laws", content)).json()["documents"] == 3

    run(test, toy_model)


@pytest.mark.parametrize("dimension", [32, 3])
def test_query_is_not_compared_with_vectors_of_another_model_that_came_meanwhile(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, dimension: int
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        own = {"name": "own", "embedder": "my-model", "dimension": dimension}
        await client.post("/collections", json=own)
        document = {"id": "x", "text": "墨池", "vector": [1.0] * dimension}
        body = {"documents": [document], "embedder": "my-model"}
        assert (await client.post("/collections/own/documents", json=body)).status_code == 200
        await client.post("/collections", json={"name": "laws"})
        await fill(client, "/collections/laws")
        laws, other = await copy_of(client, "laws"), await copy_of(client, "own")
        real = LiveCollection.vectors_of
        following: list[bytes] = []

        async def then_restored(live: LiveCollection, texts: Sequence[str]) -> Vectors:
            vectors = await real(live, texts)
            while following:
                answer = await restored(client, "laws", following.pop(), replace=True)
                assert answer.status_code == 201, answer.text
            return vectors

        monkeypatch.setattr(LiveCollection, "vectors_of", then_restored)
        asked = {"query": "墨池"}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/collections/laws/search", {"json": asked}),
            ("POST", "/search", {"json": {**asked, "collections": ["laws"]}}),
            ("GET", "/collections/laws/map", {"params": asked}),
        ]
        for method, path, given in requests:
            following.append(other)
            answer = await client.request(method, path, **given)
            check_refused(answer, 409, "other_model", "'my-model'")
            await restored(client, "laws", laws, replace=True)
            # The same model's vectors are searched.
            following.append(laws)
            assert (await client.request(method, path, **given)).status_code == 200
            assert not following

    run(test, toy_model)


def spoilt(content: bytes, path: Path) -> Iterator[tuple[bytes, str]]:
    """Yield files that are no sound backups, each with a word of the refusal."""
    yield b"", "the file is empty"
    yield b"no database" * 1000, "no sound backup"
    yield (
        content[: len(content) // 2],
        f"cut off, {len(content) - len(content) // 2:,} bytes before",
    )
    yield content[:-1], "cut off, 1 bytes before"
    middle = len(content) // 2
    yield content[:middle] + bytes(8192) + content[middle + 8192 :], "file"
    for change, said in (
        ("UPDATE parts SET vector = zeroblob(length(vector))", "not what was written"),
        ("UPDATE meta SET value = '99999' WHERE key = 'dimension'", "dimension"),
        ("UPDATE documents SET text = 'x'", "not what was written"),
        ("PRAGMA user_version = 99", "schema 99"),
        ("DROP TABLE parts", "parts"),
        ("DELETE FROM parts", "has no part"),
    ):
        path.write_bytes(content)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(change)
            connection.commit()
        yield path.read_bytes(), said


def test_file_that_is_no_sound_backup_changes_nothing(toy_model: Model, tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        content = (await client.post("/backup", json={})).content
        for bad, said in spoilt(content, tmp_path / "bad"):
            for name, replace in (("default", True), ("new", False)):
                answer = await restored(client, name, bad, replace=replace)
                check_refused(answer, 400, "invalid_request", said)
                assert str(tmp_path) not in answer.text
        assert entries(data) == ["default"]
        assert sorted(await found(client, {"query": "墨池"})) == ["a", "b", "c"]
        for path, headers in (
            ("/restore", {"content-type": "application/json"}),
            ("/restore", {"content-type": "text/plain"}),
            ("/restore", {**OCTETS, "content-encoding": "gzip"}),
        ):
            answer = await client.post(path, content=content, headers=headers)
            check_refused(answer, 415, "unsupported_media_type")
        answer = await client.post("/restore?replace=maybe", content=content, headers=OCTETS)
        check_refused(answer, 400, "invalid_request", "true or false")
        check_refused(await restored(client, ".x", content), 400, "invalid_request")

    run_over(data, test, toy_model)


def test_backups_at_once_are_bounded_and_leave_nothing(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(RUNNING, "most", 0)

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        answer = await client.post("/backup", json={})
        check_refused(answer, 429, "overloaded", "at most 0")
        monkeypatch.setattr(RUNNING, "most", 1)
        for _ in range(3):
            assert (await client.post("/backup", json={})).status_code == 200
        assert entries(data) == ["default"]
        monkeypatch.setattr("server.store.folder.MIN_FREE_BYTES", 1 << 60)
        answer = await client.post("/backup", json={})
        check_refused(answer, 507, "disk_full", "free some space")
        answer = await restored(client, "new", b"x")
        check_refused(answer, 507, "disk_full")
        assert entries(data) == ["default"]

    run_over(data, test, toy_model)


def test_backup_is_of_one_moment_while_others_write(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/collections", json={"name": "laws"})
        writing = True

        async def write() -> None:
            number = 0
            while writing:
                # Both or neither.
                texts = {f"a{number}": "墨池", f"b{number}": "云雨"}
                await fill(client, "/collections/laws", **texts)
                number += 1

        task = asyncio.ensure_future(write())
        for number in range(3):
            content = await copy_of(client, "laws")
            assert (await restored(client, f"copy{number}", content)).status_code == 201
            count = await client.post(f"/collections/copy{number}/documents/count", json={})
            assert count.json()["count"] % 2 == 0
        writing = False
        await task

    run(test, toy_model)


def test_client_that_takes_nothing_keeps_no_write_waiting(
    toy_artifact: Path, tmp_path: Path
) -> None:
    # Too long to be packed, so a backup is more than the buffers of a connection hold. And no words, which
    # would take most of the time.
    text = "😀" * 6_000
    documents = [{"id": str(n), "text": f"{n} {text}"} for n in range(200)]
    small = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)])
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        answer = client.post("/collections", json={"name": "laws", "chunks": None})
        assert answer.status_code == 201
        for begin in range(0, 200, 50):
            some = {"documents": documents[begin : begin + 50]}
            assert client.post("/collections/laws/documents", json=some).status_code == 200
        with (
            httpx.Client(base_url=server.url, transport=small, timeout=PATIENCE_S) as slow,
            slow.stream("POST", "/collections/laws/backup", json={}) as reply,
            slow.stream("POST", "/collections/laws/backup", json={}) as other,
        ):
            assert (reply.status_code, other.status_code) == (200, 200)
            # They are all that may be sent at once, and wait for their client.
            assert client.post("/collections/laws/backup", json={}).status_code == 429
            # It has been copied: nothing of the collection is held, and it may be written and removed.
            more = {"documents": [{"id": "more", "text": "云雨"}]}
            assert client.post("/collections/laws/documents", json=more).status_code == 200
            answer = client.post("/collections/laws/rename", json={"name": "statutes"})
            assert answer.status_code == 200
            assert client.delete("/collections/statutes").status_code == 200
            content = reply.read()
        path = "/collections/laws/restore"
        answer = client.post(path, content=content, headers=OCTETS)
        assert answer.json()["documents"] == 200
        more = {"documents": [{"id": "more", "text": "云雨"}]}
        assert client.post("/collections/laws/documents", json=more).status_code == 200
        answer = client.post(path, params={"replace": "true"}, content=content, headers=OCTETS)
        assert answer.status_code == 201
        server.process.kill()
        server.wait()
    with closing(DataFolder(tmp_path / "data")) as folder:
        assert folder.collections["laws"].count == 200
        eventually(lambda: entries(tmp_path / "data") == ["laws"])


def test_damaged_collection_is_replaced_from_a_backup(toy_model: Model, tmp_path: Path) -> None:
    data = tmp_path / "data"
    filled(data, "a", "b").close()
    backup(data, "main", tmp_path / "copy")
    (data / "collections" / "main" / "documents.sqlite3").write_bytes(b"no database" * 1000)

    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get("/collections")).json()["damaged"] == ["main"]
        content = (tmp_path / "copy").read_bytes()
        assert (await restored(client, "main", content)).status_code >= 400
        answer = await restored(client, "main", content, replace=True)
        assert answer.status_code == 201, answer.text
        assert (await client.get("/collections")).json() == {
            "collections": [{"name": "main", "documents": 2}],
            "damaged": [],
        }

    run_over(data, test, toy_model)


def test_large_files_are_closed_and_deleted_beside_the_event_loop(
    toy_model: Model, tmp_path: Path
) -> None:
    """To close the last handle of a deleted file takes 7 ms a GB."""
    seen: list[str] = []

    def note(frame: object, event: str, called: Any) -> None:
        of = type(getattr(called, "__self__", None))
        if event == "c_call" and called.__name__ in ("close", "__exit__", "unlink", "rmdir"):
            if issubclass(of, io.BufferedIOBase | sqlite3.Connection) or called.__name__ in dir(os):
                seen.append(f"{of.__name__}.{called.__name__}")

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        sys.setprofile(note)
        try:
            content = await copy_of(client, "default")
            assert (await restored(client, "new", content)).status_code == 201
            assert (await client.post("/documents/export", json={})).status_code == 200
        finally:
            sys.setprofile(None)
        assert seen == []

    run_over(tmp_path / "data", test, toy_model)


def test_what_is_opened_for_a_caller_that_leaves_is_closed() -> None:
    async def test() -> None:
        ready, closed = threading.Event(), threading.Event()

        class Held:
            close = staticmethod(closed.set)

        def make() -> Held:
            ready.wait(PATIENCE_S)
            return Held()

        async def hold() -> None:
            async with opened(asyncio.to_thread(make)):
                raise AssertionError("the caller has left")

        task = asyncio.ensure_future(hold())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        ready.set()
        await asyncio.wait([task])
        assert task.cancelled() and closed.is_set()

    asyncio.run(test())
