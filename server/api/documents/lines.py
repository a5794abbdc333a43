"""POST /documents with lines of JSON: documents are stored piece by piece, as they arrive.

Each piece is a transaction. A line that is no document, or cannot be stored, is listed in the reply, and the
others are stored. What ends the whole request names the last line that is stored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import msgspec
from starlette.datastructures import QueryParams

from server.api.body import decode, off_loop
from server.api.decoding import check_parameters, flag
from server.api.documents.request import NewDocument, document_of, noise_of
from server.api.json_size import UNCOUNTED_BYTES, check_size
from server.api.operation import CollectionCall, accepting_of, readable_of
from server.api.replies import Reply, json_body
from server.api.streaming.body_stream import BodyStream
from server.collections.document_limits import check_documents
from server.collections.external.kinds import Writable
from server.collections.writing.given import add_given, check_embedder
from server.collections.writing.outcome import Outcome
from server.collections.writing.several_writes import SeveralWrites
from server.errors import (
    CallerError,
    CollectionNotFound,
    OtherModel,
    Overloaded,
    RetryableError,
    ServerError,
    ShuttingDown,
    shown,
)
from server.store.reading.parts import Parts
from server.store.records import Document, Info

OPTIONS = ("replace", "embedder")
TYPES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
# Errors that are listed, and characters of each.
MOST_ERRORS, MOST_CHARACTERS = 100, 400
# How often a piece is tried while the server is busy, and seconds between.
ATTEMPTS, PAUSE_S = 12, 5
# Header with the number of the last line up to which everything is stored.
STORED_LINES = b"x-stored-lines"
PLACE = "the document"


class LineError(msgspec.Struct):
    """A line that is not stored, with its number from 1."""

    line: int
    message: str


class LinesStored(msgspec.Struct):
    """The result of storing lines.

    lines: how many were not blank. stored: documents that were new or changed; unchanged: the others.
    lines_left_out: how many lines are not stored; errors: the first 100 of them. characters_left_out: how
    many characters belong to no part, because they are no text; absent where there is none. queued: true where
    some are safe on this server and wait for the vector database; absent otherwise.
    """

    lines: int = 0
    stored: int = 0
    unchanged: int = 0
    lines_left_out: int = 0
    errors: list[LineError] = []
    characters_left_out: int | msgspec.UnsetType = msgspec.UNSET
    queued: bool | msgspec.UnsetType = msgspec.UNSET


class _Line(NamedTuple):
    number: int
    document: Document
    parts: Parts | None
    noise: int


async def add_lines(call: CollectionCall, body: BodyStream) -> Reply:
    """Store documents, one a line, as they arrive; see `add` for documents in one body."""
    given = QueryParams(call.scope["query_string"])
    check_parameters(given, OPTIONS)
    embedder, replace = given.get("embedder"), flag(given, "replace", default=True)
    info = readable_of(call).info
    storing: _Storing | None = None
    body.headers = [(STORED_LINES, b"0")]
    try:
        async for lines in body.lines():
            if storing is None:
                live = await accepting_of(call)
                if embedder is not None:
                    check_embedder(live, embedder)
                storing = _Storing(live, embedder, replace, SeveralWrites(live))
            await storing.take(lines, info)
            storing.writes.check()
            body.headers = [(STORED_LINES, b"%d" % lines[-1][0])]
    except ServerError as error:
        raise _with_progress(error, body, storing) from None
    except asyncio.CancelledError:
        # Only a server that stops cancels this.
        stopped = ShuttingDown("the server stopped before the body was whole", retry_after_s=5)
        raise _with_progress(stopped, body, storing) from None
    return Reply(json_body(LinesStored() if storing is None else storing.result))


def _with_progress(error: ServerError, body: BodyStream, storing: "_Storing | None") -> ServerError:
    """Return an error that says what is stored; the header says it of every error."""
    if storing is not None and storing.writes.lost:
        body.headers = [(STORED_LINES, b"0")]
    ((_, stored),) = body.headers
    more = f"; lines up to {int(stored)} are stored, send the others again"
    if isinstance(error, CallerError):
        return type(error)(error.message + more, param=error.param)
    if isinstance(error, RetryableError):
        return type(error)(error.message + more, retry_after_s=error.retry_after_s)
    return error


@dataclass(slots=True)
class _Storing:
    """Lines on their way into one collection, and what became of them."""

    live: Writable
    embedder: str | None
    replace: bool
    writes: SeveralWrites
    result: LinesStored = field(default_factory=LinesStored)

    async def take(self, lines: Sequence[tuple[int, bytes]], info: Info) -> None:
        """Store the documents of some lines; on return they are on the disk."""
        self.result.lines += len(lines)
        found, wrong = await off_loop(partial(_read, lines, info))
        if not self.replace:
            found = self._firsts(found)
        for number, message in wrong:
            self._leave_out(number, message)
        if found:
            await self._store(found)
        self.result.errors.sort(key=attrgetter("line"))

    async def _store(self, lines: Sequence[_Line]) -> None:
        """Store documents in one write, or in halves where one of them cannot be stored."""
        documents = [line.document for line in lines]
        # Where an id comes twice, the last counts.
        parts = {line.document.id: line.parts for line in lines}
        given = {id: own for id, own in parts.items() if own is not None}
        embedder = self.embedder if given else None
        try:
            outcome = await _patiently(
                lambda: add_given(self.live, documents, given, embedder, replace=self.replace)
            )
        except (CollectionNotFound, OtherModel):
            raise
        except CallerError as error:
            if len(lines) == 1:
                return self._leave_out(lines[0].number, error.message)
            half = len(lines) // 2
            await self._store(lines[:half])
            return await self._store(lines[half:])
        self.result.stored += outcome.number
        if outcome.queued:
            self.result.queued = True
        if noise := sum(line.noise for line in lines):
            before = self.result.characters_left_out
            self.result.characters_left_out = noise + (before or 0)
        self.result.unchanged += len(documents) - outcome.number
        return None

    def _firsts(self, lines: Sequence[_Line]) -> list[_Line]:
        """Return the first line of each id: what is stored is not replaced, wherever its line stands."""
        firsts: dict[str, _Line] = {}
        for line in lines:
            if firsts.setdefault(line.document.id, line) is not line:
                self._leave_out(
                    line.number,
                    f"document {shown(line.document.id)} stands in an earlier line; leave out"
                    ' "replace": false to replace it',
                )
        return list(firsts.values())

    def _leave_out(self, number: int, message: str) -> None:
        self.result.lines_left_out += 1
        if len(self.result.errors) < MOST_ERRORS:
            self.result.errors.append(LineError(number, _of_line(message)[:MOST_CHARACTERS]))


def _read(
    lines: Sequence[tuple[int, bytes]], info: Info
) -> tuple[list[_Line], list[tuple[int, str]]]:
    """Return the documents of some lines, and the lines that are none, each with its reason."""
    found: list[_Line] = []
    wrong: list[tuple[int, str]] = []
    for number, line in lines:
        try:
            if len(line) > UNCOUNTED_BYTES:
                check_size(line)
            document, parts = document_of(decode(line, NewDocument), info, PLACE)
            check_documents([document], (document.id,) if parts and info.embedder else ())
        except CallerError as error:
            wrong.append((number, error.message))
        else:
            noise = noise_of(document, info) if parts is None else 0
            found.append(_Line(number, document, parts, noise))
    return found, wrong


def _of_line(message: str) -> str:
    """Return a message about a request in terms of one line of it."""
    for place in ("documents[0]", PLACE):
        message = message.replace(f"{place}.", "its ").replace(place, PLACE)
    return message.replace("the body", "the line")


async def _patiently(write: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Write, again where the server is busy: the client sends no faster than it is read."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await write()
        except Overloaded as error:
            await asyncio.sleep(min(error.retry_after_s, PAUSE_S))
    return await write()
