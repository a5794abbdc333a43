"""Storing documents in a target kept in memory, several batches at a time, and the progress line."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from server.cli import ingest
from server.cli.ingest import Indexed, Meter, batched, index_documents
from server.cli.target import Chunks, Found, Question, TooLargeForServer
from server.errors import BadSettings, Overloaded, RequestTooLarge
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.records import Document


class Memory:
    """A target that holds documents by id.

    started: ids of each batch, in the order in which they came. gated: each batch waits for one call
    of `let`.
    """

    name = "main"

    def __init__(self, *, gated: bool = False, fails_at: int | None = None) -> None:
        self.held: dict[str, Document] = {}
        self.started: list[list[str]] = []
        self.inside = self.most_inside = 0
        self._gates = [asyncio.Event() for _ in range(100)]
        self._fails_at = fails_at
        if not gated:
            self.let(len(self._gates))

    def let(self, number: int = 1) -> None:
        for gate in [gate for gate in self._gates if not gate.is_set()][:number]:
            gate.set()

    async def add(self, documents: Sequence[Document]) -> int:
        place = len(self.started)
        self.started.append([document.id for document in documents])
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self._gates[place].wait()
            if place == self._fails_at:
                raise Overloaded("full", retry_after_s=1)
        finally:
            self.inside -= 1
        latest = {document.id: document for document in documents}
        fresh = {id: each for id, each in latest.items() if self.held.get(id) != each}
        self.held |= fresh
        return len(fresh)

    async def count(self) -> int:
        return len(self.held)

    async def prepare(self, chunks: Chunks) -> None: ...

    async def search(self, question: Question) -> Found:
        return Found([])

    async def reindex(self, chunks: Chunks, show: Callable[[int, int], None]) -> None: ...

    async def pages(self) -> AsyncIterator[list[Document]]:
        yield list(self.held.values())


class Moving(io.StringIO):
    def isatty(self) -> bool:
        return True


def showing(stream: io.StringIO) -> Terminal:
    return Terminal("en", io.StringIO(), stream)


def ticking(step_s: float) -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) * step_s


def read(*ids: str) -> list[tuple[Document, int]]:
    """Return a document for each id, which is also its text; each takes one byte of the source."""
    return [(Document(id, id), place) for place, id in enumerate(ids, start=1)]


def run(target: Memory, documents: Any, n_bytes: int = 0, **options: Any) -> Indexed:
    defaults: dict[str, Any] = {"clock": ticking(0), "terminal": showing(io.StringIO())}
    return asyncio.run(index_documents(target, documents, n_bytes, **defaults | options))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 2)


def test_every_document_is_stored() -> None:
    target = Memory()
    assert run(target, read("a", "b", "c")) == Indexed(3, 0, 0)
    assert list(target.held) == ["a", "b", "c"]


def test_what_the_collection_holds_counts_as_unchanged(small_batches: None) -> None:
    target = Memory()
    run(target, read("a", "b", "c"))
    assert run(target, read("c", "d", "a")) == Indexed(1, 2, 0)


def test_a_document_that_comes_twice_counts_once_each_way(small_batches: None) -> None:
    assert run(Memory(), read("a", "a", "b", "a")) == Indexed(2, 2, 0)


def test_an_empty_source_says_nothing() -> None:
    progress = io.StringIO()
    assert run(Memory(), [], terminal=showing(progress)) == Indexed(0, 0, 0)
    assert progress.getvalue() == ""


def test_a_batch_ends_at_its_number_of_documents_and_of_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 3)
    monkeypatch.setattr(ingest, "BATCH_CHARACTERS", 10)
    texts = ["1", "2", "3", "4", "x" * 9, "5", "y" * 20, "6"]
    found = [
        ([document.text for document in documents], n_read)
        for documents, n_read in batched(read(*texts))
    ]
    assert found == [
        (["1", "2", "3"], 3),
        (["4", "x" * 9], 5),
        (["5"], 6),
        (["y" * 20], 7),
        (["6"], 8),
    ]


def test_three_batches_are_under_way_and_no_more(small_batches: None) -> None:
    async def test() -> None:
        target = Memory(gated=True)
        source = read(*map(str, range(20)))
        options: Any = {"clock": ticking(0), "terminal": showing(io.StringIO())}
        working = asyncio.ensure_future(index_documents(target, source, 20, **options))
        await until(lambda: target.inside == 3)
        target.let()
        await until(lambda: len(target.started) == 4)
        target.let(100)
        assert await working == Indexed(20, 0, 0)
        assert target.most_inside == 3

    asyncio.run(test())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


def test_of_documents_with_one_id_the_last_stays(small_batches: None) -> None:
    source = [(Document(id, text), 0) for id, text in (("a", "old"), ("b", "b"), ("a", "new"))]

    async def test() -> None:
        target = Memory(gated=True)
        options: Any = {"clock": ticking(0), "terminal": showing(io.StringIO())}
        working = asyncio.ensure_future(index_documents(target, source, 0, **options))
        await until(lambda: len(target.started) == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert target.started == [["a", "b"]], "the second batch must wait for the first"
        target.let(100)
        assert await working == Indexed(3, 0, 0)
        assert target.held["a"].text == "new"

    asyncio.run(test())


def test_what_came_before_a_bad_line_is_stored(small_batches: None) -> None:
    def source() -> Iterator[tuple[Document, int]]:
        yield from read("a", "b", "c", "d", "e")
        raise BadSettings("line 6 is no document")

    target, progress = Memory(), io.StringIO()
    with pytest.raises(BadSettings, match="line 6"):
        run(target, source(), terminal=showing(progress))
    assert list(target.held) == ["a", "b", "c", "d", "e"]
    assert "indexed 5" in progress.getvalue()


@pytest.mark.parametrize("error", [RequestTooLarge("x"), TooLargeForServer("x")])
def test_a_batch_that_is_too_large_is_stored_in_parts(error: Exception) -> None:
    target = Memory()
    written: list[list[str]] = []

    async def store(documents: Sequence[Document]) -> int:
        if len(documents) > 3 or any(document.id == "x" for document in documents):
            raise error
        written.append([document.id for document in documents])
        return await target.add(documents)

    assert run(target, read(*"abcdefgh"), store=store).added == 8
    assert written == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]
    with pytest.raises(type(error)):
        run(target, read(*"ijklxm"), store=store)
    assert {*"ijkl"} <= set(target.held)


def test_a_batch_that_fails_ends_it_and_those_behind_it(small_batches: None) -> None:
    target, progress = Memory(fails_at=1), io.StringIO()
    with pytest.raises(Overloaded):
        run(target, read(*"abcdefgh"), terminal=showing(progress))
    assert {"a", "b"} <= target.held.keys()
    assert target.inside == 0
    assert "indexed 2" in progress.getvalue()


def test_an_interruption_says_what_is_stored_and_how_to_go_on(small_batches: None) -> None:
    progress = io.StringIO()

    async def test() -> None:
        target = Memory(gated=True)
        options: Any = {"clock": ticking(0), "terminal": showing(progress)}
        source = read(*map(str, range(20)))
        working = asyncio.ensure_future(index_documents(target, source, 20, **options))
        await until(lambda: target.inside == 3)
        target.let()
        await until(lambda: len(target.started) == 4)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert (list(target.held), target.inside) == (["0", "1"], 0)
        target.let(100)
        assert await index_documents(target, source, 20, **options) == Indexed(18, 2, 0)

    asyncio.run(test())
    said = progress.getvalue()
    assert "holds 2 documents" in said
    assert "run the same command again" in said


def test_a_terminal_sees_one_line_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 1)
    terminal = Moving()
    done = run(Memory(), read(*"abcd"), 4, clock=ticking(2), terminal=showing(terminal))
    states = terminal.getvalue().split("\r")
    assert "indexed 1 " in states[1] and "left 0:06" in states[1]
    assert re.search(r"indexed 2 .* [01]/s", states[2])
    assert "left 0:00" in states[4]
    assert terminal.getvalue().count("\n") == 1 and states[-1].endswith("\n")
    assert done.seconds == 12


def test_a_log_gets_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_DOCUMENTS", 1)
    log = io.StringIO()
    run(Memory(), read(*"abcdef"), 6, clock=ticking(6), terminal=showing(log))
    lines = log.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "indexed 2",
        "indexed 4",
        "indexed 6",
        "indexed 6",
    ]
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()


def test_without_a_size_no_remaining_time_is_told() -> None:
    terminal = Moving()
    meter = Meter(showing(terminal), ticking(1))
    meter.show(Message("exported {number:,}", number=3), 3, 0)
    assert "left" not in terminal.getvalue() and "3/s" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert ingest._duration(seconds) == text


def test_the_summary_is_in_both_languages() -> None:
    summary = Indexed(1234, 5, 6.78).summary()
    assert summary.chinese == "新增 1,234 条，未变 5 条，用时 6.8 秒"
    assert summary.english == "added 1,234, unchanged 5, 6.8 s"
