"""Sends a reply whose body is made piece by piece, no faster than the client takes it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from starlette.types import Message, Scope, Send

from server.api.replies import REQUEST_ID, WRITE, ErrorReply, Reply
from server.auth.gate import LONGEST
from server.errors import ServerError

log = logging.getLogger(__name__)


async def begun(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Return the same pieces after the first one is made: a refusal before it has a status of its own."""
    return _joined(await anext(pieces, b""), pieces)


async def _joined(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        if first:
            yield first
        async for piece in pieces:
            yield piece


async def send_stream(scope: Scope, send: Send, reply: Reply, error_reply: ErrorReply) -> None:
    """Send the head of a reply and the pieces of its stream.

    An error in between is sent as the last line, and the connection is closed before the reply is
    whole: a client must not take what it has for everything.
    """
    stream = cast(AsyncGenerator[bytes, None], reply.stream)
    write = scope.pop(WRITE, None)
    headers = [
        (b"content-type", reply.content_type),
        *reply.headers,
        (b"x-request-id", scope[REQUEST_ID]),
    ]
    start: Message = {"type": "http.response.start", "status": reply.status, "headers": headers}
    await send(start)
    async with aclosing(stream):
        try:
            async for piece in stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ServerError as error:
            id = str(scope[REQUEST_ID], "ascii")
            path = scope["path"][:LONGEST]
            log.warning("the reply to %s was cut off, request %s: %s", path, id, error.message)
            body = error_reply(error).body + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if write is None:
                raise
            write(reply.status, [], None)
            return
    await send({"type": "http.response.body", "body": b""})
