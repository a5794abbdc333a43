"""Files over HTTP: stored as documents, shown without storing, refused with their reason."""

import asyncio
import encodings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("lxml", reason="needs the office extra")

from server.api.files import reading, upload
from server.collections.live_collection import LiveCollection
from server.inference.model import Model
from server.sources.isolated.process import ReaderProcess, close_all
from tests.support import office_files as make
from tests.support.clients import run

OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module", autouse=True)
def processes_end() -> Iterator[None]:
    yield
    close_all()


async def send(
    client: httpx.AsyncClient, name: str, data: bytes, path: str = "/files", **more: str
) -> httpx.Response:
    return await client.post(path, params={"name": name, **more}, content=data, headers=OCTETS)


def test_pages_of_a_file_are_stored_and_found(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        data = make.pdf([["墨池笔纸"], None, ["风花雪鸟"]], "山水")
        first = (await send(client, "报告.pdf", data)).json()
        assert first["documents"] == first["stored"] == 2
        assert first["ids"] == ["报告.pdf#page=1", "报告.pdf#page=3"]
        assert first["notes"] == ["报告.pdf: 1 of 3 pages are scans: no text; run OCR on it first"]
        again = (await send(client, "报告.pdf", data)).json()
        assert (again["stored"], again["unchanged"]) == (0, 2)
        hits = (await client.post("/search", json={"query": "风花", "mode": "lexical"})).json()[
            "hits"
        ]
        assert hits[0]["metadata"] == {"file": "报告.pdf", "page": 3}

    run(talk, toy_model)


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.txt", "墨池\n笔纸\n".encode("gb18030") * 2, ["墨池", "笔纸"]),
        ("a.md", "# 题\n墨池".encode(), ["# 题\n墨池"]),
        ("a.jsonl", '"墨池"\n{"内容": "笔纸"}'.encode(), ["墨池", "笔纸"]),
        ("a.csv", "正文,n\n墨池,1\n".encode(), ["墨池"]),
        ("a.docx", make.docx(make.paragraph("墨池")), ["墨池"]),
    ],
)
def test_file_of_each_kind_is_stored(
    toy_model: Model, name: str, data: bytes, texts: list[str]
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        reply = await send(client, name, data)
        assert reply.status_code == 200, reply.text
        stored = (await client.get("/documents")).json()["documents"]
        assert [each["text"] for each in stored] == texts

    run(talk, toy_model)


def test_wrong_rows_are_listed_with_their_line_and_the_others_are_stored(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        table: list[list[object]] = [["内容", "n"], ["墨", 1], [None, 2], ["池", 3]]
        reply = (await send(client, "a.xlsx", make.xlsx({"一": table}))).json()
        assert (reply["stored"], reply["rows_left_out"]) == (2, 1)
        assert reply["errors"] == [
            {"message": 'a.xlsx, sheet 一, row 3: "内容" is empty', "line": 3, "sheet": "一"}
        ]
        lines = (await send(client, "a.jsonl", b'"ok"\n{bad\n"fine"')).json()
        assert (lines["stored"], lines["errors"][0]["line"]) == (2, 2)
        assert not any("--" in note for note in reply["notes"])

    run(talk, toy_model)


def test_rows_with_one_text_are_kept_apart_by_their_titles_or_named_as_replaced(
    toy_model: Model,
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        data = "问题,答案,n\n风,墨池,1\n花,墨池,2\n花,墨池,3\n".encode()
        reply = (await send(client, "a.csv", data)).json()
        listed = (await client.get("/documents")).json()["documents"]
        assert [(each["title"], each["metadata"]["n"]) for each in listed] == [("风", 1), ("花", 3)]
        assert [note for note in reply["notes"] if "is lost: 1" in note]
        again = (await send(client, "a.csv", data)).json()
        assert again["ids"] == reply["ids"]

    run(talk, toy_model)


def test_dry_run_stores_nothing_and_makes_no_collection(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        reply = (await send(client, "a.csv", b"text\na\nb\n", dry_run="true")).json()
        assert (reply["documents"], reply["stored"], reply["unchanged"]) == (2, 0, 0)
        assert [each["text"] for each in reply["preview"]] == ["a", "b"]
        assert (await client.get("/collections")).json()["collections"] == []

    run(talk, toy_model)


def test_preview_has_the_beginnings_of_long_texts(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        found = (await send(client, "a.md", b"ab " * 1_000_000, dry_run="true")).json()
        assert len(found["preview"][0]["text"]) == 10_000

    run(talk, toy_model)


def test_file_whose_beginning_a_restore_replaces_is_not_reported_as_stored(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "BATCH_DOCUMENTS", 1)

    async def talk(client: httpx.AsyncClient) -> None:
        await send(client, "old.txt", "旧".encode())
        backup = (await client.post("/backup", json={})).content
        real = LiveCollection.add
        replies: list[httpx.Response] = []

        async def then_restored(*arguments: Any, **named: Any) -> int:
            stored = await real(*arguments, **named)
            if not replies:
                params = {"replace": "true"}
                path = "/collections/default/restore"
                replies.append(
                    await client.post(path, params=params, content=backup, headers=OCTETS)
                )
            return stored

        monkeypatch.setattr(LiveCollection, "add", then_restored)
        reply = await send(client, "new.txt", "墨池\n笔纸".encode())
        assert replies[0].status_code == 201
        assert reply.status_code == 409 and "everything again" in reply.text
        assert (await send(client, "new.txt", "墨池\n笔纸".encode())).json()["stored"] == 2

    run(talk, toy_model)


def test_unknown_encoding_is_not_kept_in_memory(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await send(client, "a.txt", b"x", encoding="strange-name")
        assert answer.status_code == 400 and "strange-name is unknown" in answer.text
        assert "strange_name" not in encodings._cache
        for name in ("UTF-8", "GB18030", "Latin-1", "ISO-8859-1", "windows-1252", "big5", "utf_16"):
            answer = await send(client, "a.txt", "x".encode(name), encoding=name, dry_run="true")
            assert answer.status_code == 200

    run(talk, toy_model)


def test_file_goes_into_the_collection_of_the_path(toy_model: Model) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        missing = await send(client, "a.txt", b"x", "/collections/laws/files")
        assert missing.status_code == 404
        await client.post("/collections", json={"name": "laws"})
        assert (await send(client, "a.txt", b"x", "/collections/laws/files")).json()["stored"] == 1
        assert (await client.get("/collections/laws/documents")).json()["documents"][0][
            "text"
        ] == "x"

    run(talk, toy_model)


@pytest.mark.parametrize(
    ("name", "data", "more", "words"),
    [
        ("", b"x", {}, "'name' is ''"),
        ("a", b"x", {}, "'name' is 'a'"),
        ("a.zip", b"x", {}, ".docx"),
        ("a.doc", b"x", {}, "save it as .docx"),
        ("a.pdf", b"x", {}, "a.pdf was not read: it is damaged"),
        ("a.txt", b"x", {"dry_run": "maybe"}, "neither true nor false"),
        ("a.txt", b"x", {"encoding": "none"}, "encoding none is unknown"),
        ("a.txt", b"\xff\xff\xff", {}, "is not utf-8"),
        ("a.txt", b"x", {"text_column": "q"}, "read as txt"),
        ("a.csv", b"a,b\n1,2", {}, "only: a, b; name the one of the texts with text_column"),
        ("a.csv", b"text\n1", {"types": "x"}, "not like year=number"),
        ("a.txt", b"x", {"color": "red"}, "color"),
    ],
)
def test_request_that_cannot_be_served_says_why(
    toy_model: Model, name: str, data: bytes, more: dict[str, str], words: str
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        reply = await send(client, name, data, **more)
        assert reply.status_code == 400, reply.text
        assert words in reply.json()["error"]["message"]
        assert (await client.get("/collections")).json()["collections"] == []

    run(talk, toy_model)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", None],
)
def test_page_of_another_site_can_send_no_file(toy_model: Model, kind: str | None) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        headers = {} if kind is None else {"content-type": kind}
        reply = await client.post("/files?name=a.txt", content=b"x", headers=headers)
        assert reply.status_code == 415
        assert reply.json()["error"]["code"] == "unsupported_media_type"

    run(talk, toy_model)


def test_number_of_documents_of_a_file_is_bounded(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_DOCUMENTS", 2)

    async def talk(client: httpx.AsyncClient) -> None:
        assert (await send(client, "a.txt", b"a\nb")).status_code == 200
        reply = await send(client, "a.txt", b"a\nb\nc")
        assert reply.status_code == 413
        assert "more than 2 documents" in reply.json()["error"]["message"]

    run(talk, toy_model)


def test_client_that_leaves_ends_the_process_that_reads(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ReaderProcess] = []
    made = ReaderProcess.__init__

    def noted(self: ReaderProcess, *given: object) -> None:
        made(self, *given)  # type: ignore[arg-type]
        started.append(self)

    monkeypatch.setattr(ReaderProcess, "__init__", noted)
    close_all()

    async def talk(client: httpx.AsyncClient) -> None:
        request = asyncio.ensure_future(send(client, "a.pdf", make.endless_pdf()))
        while not started:
            await asyncio.sleep(0.01)
        assert (await client.get("/health")).status_code == 200
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert (await send(client, "a.txt", b"a")).json()["stored"] == 1
        assert started[0]._process.returncode is not None

    run(talk, toy_model)
