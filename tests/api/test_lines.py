"""Documents as lines of JSON: stored as they arrive, and exported as they are read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st
from starlette.types import Message

from server.api.body import BodyBudget
from server.api.documents import lines as lines_module
from server.api.streaming import body_stream
from server.api.streaming.body_stream import BodyStream
from server.collections.reading import export as export_module
from server.collections.reading import long_streams
from server.collections.writing import given
from server.collections.writing.outcome import Outcome
from server.errors import DiskFull, Overloaded
from server.inference.model import Model
from tests.api.test_collections import check_refused, fill
from tests.support.clients import run

NDJSON = {"content-type": "application/x-ndjson"}


def line(id: str, text: str = "墨池笔纸", **more: Any) -> bytes:
    return json.dumps({"id": id, "text": f"{text} {id}", **more}).encode() + b"\n"


async def send(
    client: httpx.AsyncClient, body: bytes | AsyncIterator[bytes], path: str = "/documents"
) -> httpx.Response:
    return await client.post(path, content=body, headers=NDJSON)


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), size):
        yield body[begin : begin + size]


async def ids(client: httpx.AsyncClient) -> list[str]:
    listed = (await client.get("/documents", params={"limit": 1000})).json()["documents"]
    return [one["id"] for one in listed]


def test_lines_are_stored_however_they_are_cut(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_stream, "PIECE_LINES", 3)

    async def test(client: httpx.AsyncClient) -> None:
        body = b"\n".join([line(str(n)) for n in range(8)]) + line("last").strip()
        for size in (1, 7, 64, len(body)):
            response = await send(client, in_pieces(body, size))
            said = response.json()
            assert (said["lines"], said["lines_left_out"], said["errors"]) == (9, 0, [])
            assert said["stored"] + said["unchanged"] == 9
            assert response.headers["x-stored-lines"] == "16"
            assert said["stored"] == (9 if size == 1 else 0)
        assert await ids(client) == [*map(str, range(8)), "last"]

    run(test, toy_model)


async def lines_of(body: bytes, size: int) -> list[tuple[int, bytes]]:
    """Read a body that comes in pieces of a size as lines with their numbers."""
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    with BodyBudget(1 << 30) as budget:
        stream = BodyStream(receive, budget, 30.0, 1 << 30)
        return [each async for group in stream.lines() for each in group]


@any_of(st.lists(st.sampled_from([b"\n", b" ", b"\r\n", b"a", b"bc"])), st.integers(1, 9))
def test_blank_lines_are_counted_wherever_the_pieces_end(parts: list[bytes], size: int) -> None:
    body = b"".join(parts) or b"\n"
    expected = [(n, line) for n, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
    assert asyncio.run(lines_of(body, size)) == expected


def test_blank_lines_do_not_keep_the_loop() -> None:
    body = b"\n" * 500_000 + b" \n" * 500_000
    began = time.thread_time()
    assert sum(1 for line in body.split(b"\n") if line.strip()) == 0
    one_by_one = time.thread_time() - began
    began = time.thread_time()
    assert asyncio.run(lines_of(body, 1 << 16)) == []
    assert time.thread_time() - began < one_by_one


def test_lines_that_cannot_be_stored_are_listed_and_the_others_are_stored(
    toy_model: Model,
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = b"".join(
            [
                line("a"),
                b"{oops\n",
                b'{"id": "b"}\n',
                b'{"id": "c", "text": ""}\n',
                b'{"id": "d", "text": "x", "extra": 1}\n',
                b"\n",
                line("e", title="t" * 3000),
                b'{"id": "f", "text": "\\ud800"}\n',
                b'{"id": "g", "text": "x", "vector": [1, 2]}\n',
                line("h"),
            ]
        )
        said = (await send(client, body)).json()
        assert (said["lines"], said["stored"], said["lines_left_out"]) == (9, 2, 7)
        assert [each["line"] for each in said["errors"]] == [2, 3, 4, 5, 7, 8, 9]
        said_of = {each["line"]: each["message"] for each in said["errors"]}
        for number, word in ((2, "the line is not valid JSON"), (3, "text"), (4, "empty")):
            assert word in said_of[number]
        for number, word in ((5, "extra"), (7, "2000"), (9, "numbers")):
            assert word in said_of[number]
        assert await ids(client) == ["a", "h"]

    run(test, toy_model)


def test_lines_that_the_store_refuses_are_found_among_the_others(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await send(client, line("3") + line("5"))
        body = b"".join(line(str(n), "other") for n in range(8))
        said = (await send(client, body, "/documents?replace=false")).json()
        assert (said["stored"], said["lines_left_out"]) == (6, 2)
        assert [each["line"] for each in said["errors"]] == [4, 6]
        assert "exists already" in said["errors"][0]["message"]

    run(test, toy_model)


def test_lines_may_bring_vectors_of_a_named_embedder(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        made = {"name": "own", "embedder": "my-model", "dimension": 3}
        await client.post("/collections", json=made)
        path = "/collections/own/documents"
        body = b'{"id": "a", "vector": [1, 0, 0]}\n{"id": "b", "text": "x"}\n'
        refused = await send(client, body, f"{path}?embedder=other")
        check_refused(refused, 400, "invalid_request", "'other'", "lines up to 0 are stored")
        refused = await send(client, body, path)
        check_refused(refused, 409, "other_model", "lines up to 0 are stored")
        said = (await send(client, body.splitlines()[0], f"{path}?embedder=my-model")).json()
        assert said["stored"] == 1

    run(test, toy_model)


@pytest.mark.parametrize("size", [1, 256])
def test_without_replacement_the_first_line_of_an_id_counts(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(body_stream, "PIECE_LINES", size)

    async def test(client: httpx.AsyncClient) -> None:
        body = line("a", "first") + line("b") + line("a", "second") + line("a", "third")
        said = (await send(client, body, "/documents?replace=false")).json()
        assert (said["stored"], said["unchanged"], said["lines_left_out"]) == (2, 0, 2)
        assert [error["line"] for error in said["errors"]] == [3, 4]
        assert (await client.get("/documents/a")).json()["text"] == "first a"
        # With replacement the last one counts.
        await send(client, body)
        assert (await client.get("/documents/a")).json()["text"] == "third a"

    run(test, toy_model)


def test_an_error_says_up_to_which_line_everything_is_stored(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_stream, "PIECE_LINES", 2)
    monkeypatch.setattr(lines_module, "PAUSE_S", 0)
    calls = 0
    real = given.add_given

    async def busy_then_full(*arguments: Any, **named: Any) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Overloaded("busy", retry_after_s=1)
        if calls == 4:
            raise DiskFull("{path} is full", path=Path("data"))
        return await real(*arguments, **named)

    monkeypatch.setattr(lines_module, "add_given", busy_then_full)

    async def test(client: httpx.AsyncClient) -> None:
        response = await send(client, b"".join(line(str(n)) for n in range(9)))
        check_refused(response, 507, "disk_full")
        assert response.headers["x-stored-lines"] == "4"
        assert await ids(client) == ["0", "1", "2", "3"]

    run(test, toy_model)


def test_lines_that_a_restore_replaces_are_not_reported_as_stored(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_stream, "PIECE_LINES", 2)

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        backup = (await client.post("/backup", json={})).content

        async def body(ending: bytes) -> AsyncIterator[bytes]:
            yield b"".join(line(str(n)) for n in range(4))
            params, headers = {"replace": "true"}, {"content-type": "application/octet-stream"}
            path = "/collections/default/restore"
            replaced = await client.post(path, params=params, content=backup, headers=headers)
            assert replaced.status_code == 201, replaced.text
            yield ending

        response = await send(client, body(b"".join(line(str(n)) for n in range(4, 7))))
        check_refused(response, 409, "already_exists", "replaced from a backup", "everything again")
        assert response.headers["x-stored-lines"] == "0"
        assert not {"0", "1", "2", "3"} & set(await ids(client))
        # Another error than the restore does not name lines that are gone either.
        response = await send(client, body(b"x" * 5000))
        check_refused(response, 413, "request_too_large", "lines up to 0 are stored")

    run(test, toy_model, max_body_bytes=4096)


def test_a_line_or_a_body_beyond_the_limits_is_refused(toy_model: Model) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        body = line("a") + b"x" * 5000
        refused = await send(client, in_pieces(body, 1000))
        check_refused(refused, 413, "request_too_large", "line 2", "4096", "lines up to 0")
        assert refused.headers["connection"] == "close"
        refused = await send(client, line("a"), "/documents?replace=no")
        check_refused(refused, 400, "invalid_request", "'no'")
        refused = await send(client, line("a"), "/documents?other=1")
        check_refused(refused, 400, "invalid_request", "other")
        refused = await client.post("/documents?replace=false", json={"documents": []})
        check_refused(refused, 400, "invalid_request", "in the body")
        refused = await send(client, line("a"), "/collections/none/documents")
        check_refused(refused, 404, "collection_not_found")
        zipped = {**NDJSON, "content-encoding": "gzip"}
        refused = await client.post("/documents", content=b"", headers=zipped)
        check_refused(refused, 415, "unsupported_media_type")
        assert (await send(client, b"\n \n")).json()["lines"] == 0
        assert await ids(client) == []

    run(test, toy_model, max_body_bytes=4096)


def test_lines_wait_for_no_memory_that_other_bodies_take(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(BodyBudget, "taken", 1 << 40)
            assert (await send(client, line("a"))).status_code == 200
            long = line("b") + b"x" * 100_000
            refused = await send(client, in_pieces(long, 70_000))
            check_refused(refused, 429, "overloaded", "lines up to 0 are stored")
        taken = BodyBudget.taken
        body = b"".join(line(str(n), "x" * 40_000) for n in range(20))
        assert (await send(client, in_pieces(body, 50_000))).json()["stored"] == 20
        assert BodyBudget.taken == taken

    run(test, toy_model)


def test_a_body_that_stops_is_refused_and_what_came_before_is_stored(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_stream, "PIECE_LINES", 1)

    async def stopping() -> AsyncIterator[bytes]:
        yield line("a")
        yield line("b")[:5]
        await asyncio.sleep(3)
        yield b""

    async def test(client: httpx.AsyncClient) -> None:
        refused = await send(client, stopping())
        check_refused(refused, 400, "invalid_request", "incomplete", "lines up to 1 are stored")
        assert await ids(client) == ["a"]

    run(test, toy_model, read_s=1)


# --- export ---------------------------------------------------------------------------------------


async def exported(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    response = await client.post("/documents/export", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(each) for each in response.text.splitlines()]


def test_an_export_is_what_an_import_takes(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "PAGE_DOCUMENTS", 2)
    monkeypatch.setattr(export_module, "PAGE_WITH_VECTORS", 2)

    async def test(client: httpx.AsyncClient) -> None:
        assert await exported(client) == []
        await fill(client, **{str(n): "墨池笔纸"[: 1 + n % 4] * (n + 1) for n in range(5)})
        found = await exported(client)
        assert [one["id"] for one in found] == list("01234")
        assert found[1]["metadata"] == {"n": 1, "kind": "odd"}
        assert [one["id"] for one in await exported(client, filter={"kind": "odd"})] == ["1", "3"]
        name = (await client.get("/stats")).json()["model"]
        await client.post("/collections", json={"name": "copy"})
        for format in ("float", "base64"):
            body = {"include_vectors": True, "encoding_format": format}
            whole = await client.post("/documents/export", json=body)
            path = f"/collections/copy/documents?embedder={name}"
            said = (await send(client, whole.content, path)).json()
            assert (said["stored"], said["unchanged"]) == ((5, 0) if format == "float" else (0, 5))
        again = await client.post("/collections/copy/documents/export", json=body)
        assert again.content == whole.content

    run(test, toy_model)


@pytest.mark.parametrize("body", [{}, {"filter": {"n": {"$gte": 0}}}], ids=["all", "filtered"])
def test_an_export_shows_one_moment_whatever_is_written_meanwhile(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    monkeypatch.setattr(export_module, "PAGE_DOCUMENTS", 1)

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client, a="墨池", b="笔纸", c="风花", d="雪鸟")
        real, calls = export_module._page, 0

        def page(*arguments: Any) -> tuple[bytes, int]:
            nonlocal calls
            calls += 1
            if calls == 2:
                asyncio.run_coroutine_threadsafe(overtaking(), loop).result(10)
            return real(*arguments)

        async def overtaking() -> None:
            await client.post("/documents/delete", json={"ids": ["b", "c"]})
            await client.patch("/documents/d", json={"metadata": {"n": 9}})
            await client.post("/documents", json={"documents": [{"id": "e", "text": "鱼"}]})

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(export_module, "_page", page)
        found = await exported(client, **body)
        assert [one["id"] for one in found] == ["a", "b", "c", "d"]
        assert found[3]["metadata"]["n"] == 3
        assert calls > 4
        assert [one["id"] for one in await exported(client)] == ["a", "d", "e"]
        assert not export_module.RUNNING.number

    run(test, toy_model)


def test_an_export_is_refused_before_it_begins_or_says_in_its_last_line_that_it_was_cut_off(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "PAGE_DOCUMENTS", 1)

    async def test(client: httpx.AsyncClient) -> None:
        await fill(client)
        for body, word in (({"filter": {"a": {}}}, "empty"), ({"other": 1}, "other")):
            refused = await client.post("/documents/export", json=body)
            check_refused(refused, 400, "invalid_request", word)
        refused = await client.post("/collections/none/documents/export", json={})
        check_refused(refused, 404, "collection_not_found")
        with monkeypatch.context() as patch:
            patch.setattr(export_module.RUNNING, "most", 0)
            refused = await client.post("/documents/export", json={})
            check_refused(refused, 429, "overloaded", "exports")
        monkeypatch.setattr(long_streams, "WAIT_S", -1.0)
        response = await client.post("/documents/export", json={})
        *whole, last = response.text.splitlines()
        assert [json.loads(each)["id"] for each in whole] == ["a"]
        assert "export a part" in json.loads(last)["error"]["message"]

    run(test, toy_model)
