"""Store documents in a collection, a few batches at a time, and show the progress.

Each batch is one durable write, and a collection skips what it holds already. So an interruption
loses only the batches under way, and the same command run again continues where it stopped. Several
batches are under way at once: one is embedded while another is read or written.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from server.cli.indexing.background import in_background
from server.cli.indexing.pace import Pace
from server.cli.target import Target, TooLargeForServer
from server.errors import BadSettings, RequestTooLarge, ServerError
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.sources.problems import Problems
from server.store.records import Document

BATCH_DOCUMENTS = 256
# A server takes bodies of 32 MB, and a character may need four bytes.
BATCH_CHARACTERS = 4_000_000
# 2,048 law articles on a 2-core VM, 2026-11-24, best of three runs: 1, 2, 3, 4 at once take 23.8,
# 20.1, 16.4 and 16.9 s. From three on the lanes never wait for the disk.
BATCHES_AT_ONCE = 3
PLAIN_PROGRESS_S = 10.0  # between lines in a log; a terminal has one line that moves

Store = Callable[[Sequence[Document]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Indexed:
    """Counts of one run. A document that comes twice counts once as added, once as unchanged.

    refused: documents that cannot be stored and were left out.
    """

    added: int
    unchanged: int
    seconds: float
    refused: int = 0

    def summary(self, wrong: int = 0) -> Message:
        """Return the counts for the end of a command; wrong: errors after which it went on."""
        counts = Message(
            "added {added:,}, unchanged {unchanged:,}, {seconds:.1f} s",
            added=self.added,
            unchanged=self.unchanged,
            seconds=self.seconds,
        )
        if not wrong:
            return counts
        return Message("{counts}; wrong and left out: {wrong:,}", counts=counts, wrong=wrong)


class _Written(NamedTuple):
    """How many documents of a batch changed, and how many cannot be stored."""

    stored: int
    refused: int


class _Batch(NamedTuple):
    """Documents that are being stored. n_read: bytes of the source up to their end."""

    documents: list[Document]
    ids: frozenset[str]
    n_read: int
    stored: "asyncio.Task[_Written]"


class _UnderWay:
    """The batches that are being stored, oldest first."""

    def __init__(self, store: Store, meter: "Meter", n_bytes: int, problems: Problems) -> None:
        self.added = self.unchanged = self.refused = 0
        self._store = store
        self._meter = meter
        self._problems = problems
        self._pace = Pace(n_bytes, meter.started)
        self._batches: deque[_Batch] = deque()

    async def start(self, documents: list[Document], n_read: int) -> None:
        ids = frozenset(document.id for document in documents)
        # subtle: of documents with the same id the last must stay, so its batch waits for theirs.
        while len(self._batches) == BATCHES_AT_ONCE or any(ids & b.ids for b in self._batches):
            await self._finish_oldest()
        stored = asyncio.ensure_future(self._written(documents))
        self._batches.append(_Batch(documents, ids, n_read, stored))

    async def _written(self, documents: Sequence[Document]) -> _Written:
        """Store documents, in several writes where one would be too large.

        A document that is too large by itself is an error, after which the rest may be stored.
        """
        try:
            return _Written(await self._store(documents), 0)
        except (RequestTooLarge, TooLargeForServer) as error:
            half = len(documents) // 2
            if not half and not self._problems.keep_going:
                raise
            why = error.sentence if isinstance(error, TooLargeForServer) else error.message
        if not half:
            self._problems.add(BadSettings("document {name}: {why}", name=documents[0].id, why=why))
            return _Written(0, 1)
        first = await self._written(documents[:half])
        second = await self._written(documents[half:])
        return _Written(first.stored + second.stored, first.refused + second.refused)

    async def finish(self) -> None:
        while self._batches:
            await self._finish_oldest()

    async def abandon(self) -> None:
        """Cancel what is not written yet."""
        for batch in self._batches:
            batch.stored.cancel()
        await asyncio.gather(*(batch.stored for batch in self._batches), return_exceptions=True)

    async def _finish_oldest(self) -> None:
        batch = self._batches[0]
        stored, refused = await batch.stored
        self._batches.popleft()
        unchanged = len(batch.documents) - stored - refused
        self.refused += refused
        self.added += stored
        self.unchanged += unchanged
        self._pace.add(self._meter.now(), batch.n_read, stored, unchanged)
        done = Message(
            "indexed {added:,} · unchanged {unchanged:,}",
            added=self.added,
            unchanged=self.unchanged,
        )
        self._meter.show_pace(done, self._pace.per_second, self._pace.left_s)


async def index_documents(
    target: Target,
    documents: Iterable[tuple[Document, int]],
    n_bytes: int,
    *,
    clock: Callable[[], float],
    terminal: Terminal,
    store: Store | None = None,
    problems: Problems | None = None,
) -> Indexed:
    """Store every document of a source; return when all are on the disk.

    documents: each with how many of the `n_bytes` were read by then; n_bytes is 0 if unknown.
    store: replaces the target's `add`. problems: what to do with a document that is too large. Raises what
    reading raises, after storing what was read before. When cancelled, it prints how many documents the
    collection holds.
    """
    started = clock()
    meter = Meter(terminal, clock)
    under_way = _UnderWay(store or target.add, meter, n_bytes, problems or Problems())
    batches = batched(documents)
    try:
        while batch := await _read(batches, under_way):
            await under_way.start(*batch)
        await under_way.finish()
    except asyncio.CancelledError:
        await under_way.abandon()
        meter.finish()
        with suppress(ServerError):
            terminal.inform(
                "stopped: collection {name} holds {number:,} documents now; run the same command "
                "again to continue",
                name=target.name,
                number=await target.count(),
            )
        raise
    finally:
        await under_way.abandon()
        meter.finish()
    seconds = clock() - started
    return Indexed(under_way.added, under_way.unchanged, seconds, under_way.refused)


async def _read(
    batches: Iterator[tuple[list[Document], int]], under_way: _UnderWay
) -> tuple[list[Document], int] | None:
    """Return the next batch, None at the end; read in a thread, because a pipe may block."""
    try:
        return await in_background(lambda: next(batches, None))
    except ServerError:
        await under_way.finish()
        raise


def batched(documents: Iterable[tuple[Document, int]]) -> Iterator[tuple[list[Document], int]]:
    """Group neighbours into batches of one write each, with the bytes read by their end.

    What came before an error is a batch too. The error follows it.
    """
    batch: list[Document] = []
    size = n_read = 0
    failed: ServerError | None = None
    try:
        for document, n_read_now in documents:
            if batch and (
                len(batch) == BATCH_DOCUMENTS or size + len(document.text) > BATCH_CHARACTERS
            ):
                yield batch, n_read
                batch, size = [], 0
            batch.append(document)
            size += len(document.text)
            n_read = n_read_now
    except ServerError as error:
        failed = error
    if batch:
        yield batch, n_read
    if failed is not None:
        raise failed


class Meter:
    """Shows progress: one moving line on a terminal, plain lines in a file; the last one stays."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float]) -> None:
        self._terminal = terminal
        self._clock = clock
        self._moves = terminal.err.isatty()
        self.started = self._shown = self._now = clock()
        self._line = ""

    def now(self) -> float:
        """Return the time, which the next line is shown at."""
        self._now = self._clock()
        return self._now

    def show(self, done: Message, number: int, share: float) -> None:
        """Show that `number` documents are done, which are `share` of all, 0 if unknown."""
        elapsed = max(self.now() - self.started, 1e-9)
        left_s = elapsed * (1 / share - 1) if share else None
        self.show_pace(done, number / elapsed, left_s)

    def show_pace(self, done: Message, per_second: float, left_s: float | None) -> None:
        """Show what is done, how fast, and the seconds that are left, None if unknown."""
        now, words = self._now, self._terminal.words
        self._line = f"{words(done)} · {per_second:,.0f}/s"
        left = ""
        if left_s is not None:
            left = " · " + words("left {time}", time=_duration(left_s))
        if self._moves:
            self._write(f"\r{self._line}{left}\x1b[K")
        elif now - self._shown >= PLAIN_PROGRESS_S:
            self._write(f"{self._line}{left}\n")
            self._shown = now

    def finish(self) -> None:
        if self._line:
            self._write(f"\r{self._line}\x1b[K\n" if self._moves else f"{self._line}\n")
        self._line = ""

    def _write(self, text: str) -> None:
        self._terminal.err.write(text)
        self._terminal.err.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
