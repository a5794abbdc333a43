"""The body of a request as it arrives, piece by piece, within limits of time."""

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.types import Receive

from server.api.body import MIN_BYTES_PER_S, BodyBudget, longest_wait_s
from server.api.replies import Headers
from server.clock import now
from server.errors import InvalidRequest, RequestTooLarge

# Lines that are handed on together, and their bytes; one line may be longer.
PIECE_LINES, PIECE_BYTES = 256, 4_000_000
# Bytes of the beginning, for the audit.
BEGINNING_BYTES = 1 << 16


VISIBLE = re.compile(rb"\S")


class ClientLeft(Exception):
    """Raised where the client disconnects before the body is whole; no one gets a reply."""


class BodyStream:
    """The body of one request. The connection is read no faster than the pieces are taken.

    whole: whether all of it has been read. beginning: its first bytes. headers: of the reply, also where it is
    a refusal.
    """

    def __init__(
        self, receive: Receive, budget: BodyBudget, read_s: float, max_line_bytes: int
    ) -> None:
        self.whole = False
        self.beginning = b""
        self.headers: Headers = []
        self._receive = receive
        self._budget = budget
        self._read_s = read_s
        self._max_line_bytes = max_line_bytes
        # Bytes that have come, and the seconds in which they were waited for.
        self._size = 0
        self._waited_s = 0.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come; raises ClientLeft, or InvalidRequest where they come too slowly."""
        while not self.whole:
            if piece := await self._next():
                yield piece

    async def _next(self) -> bytes:
        began = now()
        wait_s = longest_wait_s(self._waited_s, self._size, self._read_s)
        try:
            async with asyncio.timeout(wait_s):
                message = await self._receive()
        except TimeoutError:
            raise InvalidRequest(
                f"the body is incomplete: {self._size} bytes came; more must come within"
                f" {self._read_s:g} s, and {MIN_BYTES_PER_S} bytes a second after the first"
                f" {self._read_s:g} s"
            ) from None
        self._waited_s += now() - began
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        self.whole = not message.get("more_body", False)
        if len(self.beginning) < BEGINNING_BYTES:
            self.beginning += piece[:BEGINNING_BYTES]
        return piece

    async def lines(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yield groups of lines that are not blank, each with its number from 1; the last may lack its end.

        Raises RequestTooLarge for a line that is longer than a body may be, Overloaded where other bodies take
        the memory.
        """
        number, size = 0, 0
        group: list[tuple[int, bytes]] = []
        # Of a line that has begun.
        begun: list[bytes] = []
        begun_bytes = 0
        async for piece in self:
            first = 0
            while (end := piece.find(b"\n", first)) >= 0:
                if not begun and (blank := _blank_until(piece, first)) > first:
                    # subtle: a piece may have 65,536 lines, which would keep the loop one by one.
                    number += piece.count(b"\n", first, blank)
                    first = blank
                    continue
                number += 1
                line = b"".join((*begun, piece[first:end]))
                first, begun, begun_bytes = end + 1, [], 0
                if not line.isspace() and line:
                    group.append((number, line))
                    size += len(line)
                    if len(group) == PIECE_LINES or size > PIECE_BYTES:
                        yield group
                        group, size = [], 0
            if rest := piece[first:]:
                begun.append(rest)
                begun_bytes += len(rest)
            if begun_bytes > self._max_line_bytes:
                raise RequestTooLarge(
                    f"line {number + 1} has more than {self._max_line_bytes} bytes, the most of one line"
                    " (--max-body-bytes)"
                )
            self._budget.hold(size + begun_bytes)
        last = b"".join(begun)
        if last and not last.isspace():
            group.append((number + 1, last))
        if group:
            yield group


def _blank_until(piece: bytes, first: int) -> int:
    """Return where the first line begins that is not blank, or that does not end in the piece."""
    found = VISIBLE.search(piece, first)
    return piece.rfind(b"\n", first, found.start() if found else len(piece)) + 1
