"""What one request may cost others: bounds of replies, refusals of reads, and nothing of the disk on the loop."""

import asyncio
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.replies import Unread
from server.api.searching import reply as search_reply
from server.app import create_app
from server.collections import search_turns
from server.collections.live_collection import LiveCollection
from server.collections.read_threads import ReadThreads
from server.config import Config
from server.errors import Overloaded
from server.inference.model import Model
from server.store.folder import DataFolder
from server.store.sqlite import read_limit
from server.store.sqlite.database import Database
from tests.support.clients import lifespan, run, stateful
from tests.support.fakes import PATIENCE_S

Client = httpx.AsyncClient


async def store(client: Client, number: int, text: str, **metadata: Any) -> None:
    documents = [{"id": str(n), "text": f"{text} {n}", "metadata": metadata} for n in range(number)]
    response = await client.post("/documents", json={"documents": documents})
    assert response.status_code == 200, response.text


def refused(response: httpx.Response, status: int, code: str, *words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert all(word in error["message"] for word in words), error["message"]


# --- replies --------------------------------------------------------------------------------------


def test_a_search_whose_hits_are_too_large_is_refused_and_says_what_to_ask_less_of(
    toy_model: Model,
) -> None:
    async def test(client: Client) -> None:
        await store(client, 10, "墨池" * 10)
        body: dict[str, Any] = {"queries": ["墨池"] * 40, "top_k": 10}
        refused(
            await client.post("/search", json=body),
            413,
            "request_too_large",
            "20000 bytes",
            "--max-reply-bytes",
            "top_k",
            "queries",
        )
        body["top_k"] = 1
        assert (await client.post("/search", json=body)).status_code == 200
        # Metadata is only known to be large when it is written.
        await store(client, 10, "墨", note="池" * 1_000)
        refused(
            await client.post("/search", json={"query": "墨", "top_k": 10}),
            413,
            "request_too_large",
        )

    run(test, toy_model, max_reply_bytes=20_000)


class Ticking:
    """A clock that moves on by a step whenever it is read."""

    def __init__(self, step_s: float) -> None:
        self._readings = (n * step_s for n in count())

    def __call__(self) -> float:
        return next(self._readings)


@pytest.mark.parametrize("number", [7, 13], ids=["while they are removed", "while they are found"])
def test_a_removal_by_filter_that_takes_too_long_removes_nothing(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def test(client: Client) -> None:
        await store(client, number, "墨池", kind="a")
        await store(client, 1, "砚台", kind="b")
        monkeypatch.setattr(read_limit, "now", Ticking(1.0))
        answer = await client.post("/documents/delete", json={"filter": {"kind": "a"}})
        words = ("longer than 10 s", "--query-s", "nothing was removed", "fewer documents")
        refused(answer, 413, "request_too_large", *words)
        monkeypatch.undo()
        assert (await client.get("/stats")).json()["documents"] == number
        hits = (await client.post("/search", json={"query": "墨池", "top_k": 20})).json()["hits"]
        assert len(hits) == number
        # Fewer documents are removed, and the same ones once there is time.
        monkeypatch.setattr(read_limit, "now", Ticking(1.0))
        for filter in ({"kind": "b"}, {"kind": "a"}):
            answer = await client.post("/documents/delete", json={"filter": filter})
            assert answer.status_code == 200, answer.text
            assert answer.json()["removed"] == (1 if filter == {"kind": "b"} else number - 1)
            monkeypatch.undo()

    run(test, toy_model)


@pytest.mark.parametrize("way", ["by their ids", "each its own", "one of many chunks"])
def test_a_change_of_metadata_that_takes_too_long_changes_nothing(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async def test(client: Client) -> None:
        await client.post(
            "/collections", json={"name": "default", "chunks": {"size": 8, "overlap": 0}}
        )
        if way == "one of many chunks":
            documents = [{"id": "1", "text": "墨池笔纸。" * 20, "metadata": {"kind": "a"}}]
            await client.post("/documents", json={"documents": documents})
        else:
            await store(client, 13, "墨池", kind="a")
        page = (await client.get("/documents")).json()["documents"]
        ids = [one["id"] for one in page]
        patch: dict[str, Any] = {"metadata": {"kind": "b"}}
        body = {"ids": ids, **patch}
        if way == "each its own":
            body = {"documents": [{"id": id, **patch} for id in ids]}
        monkeypatch.setattr(read_limit, "now", Ticking(1.0))
        answer = await client.patch("/documents", json=body)
        words = ("longer than 10 s", "--query-s", "nothing was changed", "fewer documents")
        refused(answer, 413, "request_too_large", *words)
        monkeypatch.undo()
        assert (await client.get("/documents")).json()["documents"] == page
        answer = await client.patch("/documents", json=body)
        assert answer.json()["changed"] == len(ids)

    run(test, toy_model)


def test_a_search_of_many_turns_has_one_limit_of_time(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Client) -> None:
        await store(client, 3, "墨池")
        monkeypatch.setattr(search_turns, "now", Ticking(0.3))
        for number, status in ((3 * search_turns.TURN_QUERIES, 200), (256, 413)):
            body = {"queries": ["墨池"] * number, "top_k": 1}
            answer = await client.post("/search", json=body)
            assert answer.status_code == status, answer.text
        refused(answer, 413, "request_too_large", "longer than 1 s", "fewer queries")

    run(test, toy_model, query_s=1)


def test_pages_of_long_texts_are_shorter_and_no_document_is_left_out(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await store(client, 10, "墨池" * 500)
        ids, after, sizes = [], "0", []
        while after is not None:
            page = (await client.get(f"/documents?limit=7&after={after}")).json()
            sizes.append(len(page["documents"]))
            ids += [document["id"] for document in page["documents"]]
            after = page["next"]
        assert ids == [str(n) for n in range(10)]
        assert sizes == [3, 3, 3, 1]
        assert (await client.get("/documents/7")).status_code == 200

    run(test, toy_model, max_reply_bytes=10_000)


def test_a_document_larger_than_a_reply_is_still_listed(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        await store(client, 3, "墨池" * 500)
        page = (await client.get("/documents")).json()
        assert [page["documents"][0]["id"], len(page["documents"])] == ["0", 1]
        page = (await client.get("/documents", params={"after": page["next"]})).json()
        assert [page["documents"][0]["id"], len(page["documents"])] == ["1", 1]

    run(test, toy_model, max_reply_bytes=1_024)


def test_highlights_have_a_bound(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_reply, "MAX_MARKED", 300)

    async def test(client: Client) -> None:
        await store(client, 10, "墨池" * 20)
        body: dict[str, Any] = {"query": "墨池", "top_k": 10, "mode": "lexical", "highlight": True}
        refused(
            await client.post("/search", json=body), 413, "request_too_large", "highlight", "300"
        )
        assert (await client.post("/search", json={**body, "top_k": 3})).status_code == 200

    run(test, toy_model)


def test_large_replies_are_written_on_a_thread(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    written = search_reply.body_of

    def noted(*given: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return written(*given)

    monkeypatch.setattr(search_reply, "body_of", noted)

    async def test(client: Client) -> None:
        await client.post("/collections", json={"name": "default", "chunks": None})
        await store(client, 20, "墨池" * 1_000)
        for top_k in (1, 20):
            answer = await client.post("/search", json={"query": "墨池", "top_k": top_k})
            assert len(answer.json()["hits"]) == top_k
        assert threads[0] == "MainThread" and threads[1].startswith("read")

    run(test, toy_model)


def test_replies_that_clients_do_not_take_have_a_bound(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Client) -> None:
        await store(client, 20, "墨池" * 2_000)
        monkeypatch.setattr(Unread, "waiting", 8 * 200_000 - 10_000)
        refused(await client.get("/documents"), 429, "overloaded", "not taken 1590000 bytes")
        assert (await client.get("/health")).status_code == 200
        monkeypatch.setattr(Unread, "waiting", 0)
        assert (await client.get("/documents")).status_code == 200

    run(test, toy_model, max_reply_bytes=200_000)


# --- requests -------------------------------------------------------------------------------------


def test_too_many_documents_and_ids_are_refused_by_number_and_limit(toy_model: Model) -> None:
    async def test(client: Client) -> None:
        documents = [{"text": "墨"}] * 10_001
        refused(
            await client.post("/documents", json={"documents": documents}),
            413,
            "request_too_large",
            "10001",
            "10000",
        )
        ids = ["a"] * 10_001
        refused(
            await client.post("/documents/delete", json={"ids": ids}),
            413,
            "request_too_large",
            "10001 ids",
            "10000",
            "filter",
        )
        document = {"text": "墨", "metadata": {"k" * 100_000: list(range(4_000))}}
        refused(
            await client.post("/documents", json={"documents": [document]}),
            400,
            "invalid_request",
            "documents[0].metadata",
            "100000",
        )

    run(test, toy_model)


READS = [
    ("GET", "/documents", None),
    ("GET", "/documents/0", None),
    ("POST", "/documents/count", {"filter": {"n": 1}}),
    ("POST", "/documents/delete", {"filter": {"n": 1}}),
    ("POST", "/search", {"query": "墨"}),
    ("GET", "/stats", None),
]


def test_every_read_can_be_refused_and_says_when_to_come_again(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise Overloaded("reads wait", retry_after_s=7)

    async def test(client: Client) -> None:
        await store(client, 3, "墨池", n=1)
        monkeypatch.setattr("server.collections.read_queue.ReadQueue.admit", full)
        for method, path, body in READS:
            response = await client.request(method, path, json=body)
            refused(response, 429, "overloaded")
            assert response.headers["retry-after"] == "7", path

    run(test, toy_model)


# --- the default collection ---------------------------------------------------------------------


def test_reading_creates_nothing_and_the_first_writes_create_one_collection(
    toy_model: Model, tmp_path: Path
) -> None:
    async def test() -> None:
        folder = DataFolder(tmp_path)
        app = create_app([toy_model], Config(lanes=1), folder)
        async with lifespan(app) as state:
            transport = httpx.ASGITransport(stateful(app, state))
            async with Client(transport=transport, base_url="http://inkwell") as client:
                await check(client)

    async def check(client: Client) -> None:
        expected: list[tuple[str, str, Any, int]] = [
            ("GET", "/documents", None, 200),
            ("GET", "/documents/0", None, 404),
            ("DELETE", "/documents/0", None, 404),
            ("POST", "/documents/count", {}, 200),
            ("POST", "/documents/delete", {"ids": ["0"]}, 200),
            ("POST", "/documents/delete", {"filter": {"n": 1}}, 200),
            ("POST", "/documents", {"documents": []}, 200),
            ("POST", "/search", {"queries": ["墨", "池"]}, 200),
            ("POST", "/search", {"vector": [1.0]}, 400),
            ("GET", "/collections", None, 200),
            ("DELETE", "/collections/default", None, 404),
        ]
        for method, path, body, status in expected:
            response = await client.request(method, path, json=body)
            assert response.status_code == status, f"{path} {response.text}"
        before = (await client.get("/stats")).json()
        assert list((tmp_path / "collections").iterdir()) == []
        assert (before["documents"], before["bytes"]) == (0, 0)

        bodies = [{"documents": [{"id": str(n), "text": f"墨 {n}"}]} for n in range(8)]
        answers = await asyncio.gather(*(client.post("/documents", json=each) for each in bodies))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert (await client.post("/documents/count", json={})).json() == {"count": 8}
        after = (await client.get("/stats")).json()
        changing = {"documents", "parts", "bytes", "agreement", "index", "changed"}
        assert {key: before[key] for key in before if key not in changing} == {
            key: after[key] for key in after if key not in changing
        }
        assert [path.name for path in (tmp_path / "collections").iterdir()] == ["default"]

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_a_collection_that_is_being_created_exists_once(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    create = DataFolder.create

    def slow(*given: Any) -> Any:
        assert gate.wait(PATIENCE_S)
        return create(*given)

    monkeypatch.setattr(DataFolder, "create", slow)

    async def test(client: Client) -> None:
        async def made() -> int:
            return (await client.post("/collections", json={"name": "a"})).status_code

        first, second = asyncio.ensure_future(made()), asyncio.ensure_future(made())
        assert await second == 409
        assert (await client.get("/collections/a/stats")).status_code == 404
        assert (await client.get("/health")).status_code == 200, "the loop is free meanwhile"
        gate.set()
        assert await first == 201
        assert (await client.get("/collections/a/stats")).status_code == 200

    run(test, toy_model)


# --- the loop -------------------------------------------------------------------------------------


def test_no_route_touches_the_database_on_the_loop(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each access takes as long as on a slow disk; the loop turns all the while."""
    loop_thread = threading.get_ident()
    touched: list[str] = []

    def slow(name: str) -> None:
        original = getattr(Database, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            if threading.get_ident() == loop_thread:
                touched.append(name)
            time.sleep(0.002)
            return original(*given, **named)

        monkeypatch.setattr(Database, name, wrapped)

    async def test(client: Client) -> None:
        for name in ("__init__", "reading", "transaction", "close"):
            slow(name)
        collection = "/collections/a"
        document = {"id": "0", "text": "墨池", "metadata": {"n": 1}}
        asked = [
            ("POST", "/collections", {"name": "a"}),
            ("POST", "/collections", {"name": "b", "chunks": None}),
            *(
                (method, prefix + path, body)
                for prefix in (collection, "/collections/b", "")
                for method, path, body in [
                    ("POST", "/documents", {"documents": [document]}),
                    ("POST", "/documents", {"documents": [document], "replace": True}),
                    ("POST", "/search", {"query": "墨", "mode": "hybrid", "filter": {"n": 1}}),
                    ("POST", "/search", {"query": "墨", "mode": "lexical", "highlight": True}),
                    ("POST", "/search", {"queries": ["墨"] * 3}),
                    *READS,
                    ("POST", "/documents", {"documents": [{**document, "title": "题"}]}),
                    ("DELETE", "/documents/0", None),
                ]
            ),
            ("GET", "/collections", None),
            ("GET", "/ready", None),
            ("GET", "/metrics", None),
            ("DELETE", collection, None),
        ]
        for method, path, body in asked:
            response = await client.request(method, path, json=body)
            assert response.status_code < 300, f"{path} {response.text}"
        assert touched == []

    run(test, toy_model)


def test_a_plain_search_is_answered_beside_a_flood_of_filters(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flood's reads wait at a gate; plain searches pass by it, and the rest is refused."""
    gate = threading.Event()
    of_search = "server.collections.read_cost.of_search"

    def cost(queries: Any, *_: Any) -> float:
        return 1.0 if queries[0].filter is not None else 0.001

    turn = ReadThreads.turn

    async def held(self: ReadThreads, cost_s: float, call: Any) -> Any:
        return await turn(self, cost_s, lambda: gate.wait(PATIENCE_S) and call())

    async def test(client: Client) -> None:
        await store(client, 3, "墨池", n=1)
        monkeypatch.setattr(of_search, cost)
        monkeypatch.setattr(ReadThreads, "turn", held)
        terms = [{"n": {"$ne": n}} for n in range(2, 250)]
        flood = [
            asyncio.ensure_future(
                client.post("/search", json={"query": "墨", "filter": {"$and": terms}})
            )
            for _ in range(64)
        ]
        for _ in range(10):
            answer = await client.post("/search", json={"query": "墨"})
            assert answer.status_code == 200
        gate.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*flood)]
        assert set(statuses) == {200, 429} and statuses.count(429) > 32

    run(test, toy_model)


def test_a_refused_search_is_not_embedded(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, embedded = threading.Event(), threading.Event(), []
    vectors_of, turn = LiveCollection.vectors_of, ReadThreads.turn

    async def noted(self: LiveCollection, texts: Any) -> Any:
        embedded.append(texts)
        return await vectors_of(self, texts)

    async def held(self: ReadThreads, cost_s: float, call: Any) -> Any:
        entered.set()
        return await turn(self, cost_s, lambda: gate.wait(PATIENCE_S) and call())

    async def test(client: Client) -> None:
        await store(client, 1, "墨池")
        monkeypatch.setattr("server.collections.read_cost.of_search", lambda *_: 100.0)
        monkeypatch.setattr(LiveCollection, "vectors_of", noted)
        monkeypatch.setattr(ReadThreads, "turn", held)
        first = asyncio.ensure_future(client.post("/search", json={"query": "墨"}))
        await asyncio.to_thread(entered.wait, PATIENCE_S)
        second = await client.post("/search", json={"query": "池"})
        gate.set()
        assert second.status_code == 429 and (await first).status_code == 200
        assert embedded == [["墨"]]

    run(test, toy_model)
