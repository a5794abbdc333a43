"""Reads and decodes the body of a request, within limits of size, memory and time."""

import asyncio
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope

from server.api.decoding import forgiven, may_be_forgiven, not_json, refusal
from server.api.json_size import UNCOUNTED_BYTES
from server.api.replies import JSON, MAX_LARGE_REPLIES
from server.auth.gate import secret_in
from server.clock import now
from server.errors import (
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    ServerError,
    ShuttingDown,
    UnsupportedMediaType,
    shown,
)
from server.system.turns import Turns

T = TypeVar("T")
# msgspec's errors for a body that is not JSON, or is nested too deeply to be read.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NULL = b"null"
# Types that a browser sends to any server without asking it.
SIMPLE_TYPES = (
    *(b"", b"text/plain", b"multipart/form-data", b"application/x-www-form-urlencoded"),
)
# A request's headers by lower-case name. Of a header that comes twice, the last one counts.
Fields = Mapping[bytes, bytes]

# Memory for bodies, in bodies of the largest size. Eight of 32 MB took resident memory from 144 to 389 MB
# while they arrived, and to 582 MB when all were decoded at once (2026-11-24, AMD EPYC, 2 cores).
MAX_LARGE_BODIES = 8
# Smaller bodies do not count: uvicorn reads as much ahead for every connection anyway. So a query is
# never refused because of other clients' large bodies.
SMALL_BODY_BYTES = 65_536
# A larger body is decoded and checked on a thread where that is more than decoding: the tree of a filter with
# 256 conditions takes a millisecond, and 64 clients may send one at once.
PREPARED_ON_LOOP = 4_096
# One at a time: each holds the interpreter lock, and with several the loop would wait for it longer.
PREPARING = Turns(1)
# A body must arrive at this rate after the first `read_s` seconds: 512 kbit/s, a slow line. So a slow
# client holds memory for 32 MB for nine minutes at most.
MIN_BYTES_PER_S = 65_536
# Seconds in which two cores compute what one large body asks for: 2,048 texts of some hundred tokens.
BODY_RETRY_S = 10


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits on the body of one request, and on replies.

    read_s: seconds to wait for the next bytes. any_type: the content-type may be anything. is_file: the body is
    a file and not JSON. max_unread: bytes of all replies that clients have not taken.
    """

    max_bytes: int
    read_s: float
    max_unread: int = MAX_LARGE_REPLIES << 25
    any_type: bool = False
    is_file: bool = False


class BodyBudget:
    """The memory that one request's body takes from the memory for all bodies.

    Use as a context manager: the memory is free again at the end of the request.

    taken: bytes of all requests of this process. Bytes count when they arrive. A content-length alone
    takes no memory from other requests.
    """

    taken = 0

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0

    def __enter__(self) -> "BodyBudget":
        return self

    def check(self, size: int) -> None:
        """Raise Overloaded if there is no memory now for a body of `size` bytes."""
        others = BodyBudget.taken - self._size
        if size > SMALL_BODY_BYTES and others + size > self._limit:
            raise Overloaded(
                f"request bodies take {others} bytes of memory now, at most {self._limit} are allowed;"
                " try again later",
                retry_after_s=BODY_RETRY_S,
            )

    def hold(self, size: int) -> None:
        """Take memory for the `size` bytes that are held now, more or fewer than before; raises Overloaded."""
        counted = size if size > SMALL_BODY_BYTES else 0
        if counted or self._size:
            self.check(counted)
            BodyBudget.taken += counted - self._size
            self._size = counted

    @property
    def size(self) -> int:
        """The bytes that count: 0 of a small body."""
        return self._size

    def __exit__(self, *_: object) -> None:
        BodyBudget.taken -= self._size
        self._size = 0


class ReadTimeout:
    """Cancels the current task when a body stops arriving, or arrives too slowly.

    Every request has one. asyncio.timeout costs three times as much: 5 us.
    """

    def __init__(self, read_s: float) -> None:
        self._read_s = read_s
        self._expired = False

    def __enter__(self) -> "ReadTimeout":
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._began = now()
        self._timer = self._loop.call_later(self._read_s, self._expire)
        return self

    def renew(self, size: int) -> None:
        """Wait for more, after `size` bytes have arrived."""
        self._timer.cancel()
        wait_s = longest_wait_s(now() - self._began, size, self._read_s)
        self._timer = self._loop.call_later(wait_s, self._expire)

    def error(self, size: int) -> ServerError:
        """Return why the task was cancelled, after `size` bytes had arrived."""
        if self._expired:
            waited_s = now() - self._began
            return InvalidRequest(
                f"the body is incomplete: {size} bytes came in {waited_s:.0f} s; more must come within"
                f" {self._read_s:g} s, and {MIN_BYTES_PER_S} bytes a second after the first"
                f" {self._read_s:g} s"
            )
        # Only a server that stops cancels requests, and it does not wait for the rest of the body.
        return ShuttingDown("the server stopped before the request was complete", retry_after_s=5)

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def longest_wait_s(waited_s: float, size: int, read_s: float) -> float:
    """Return the seconds to wait for more of a body, of which `size` bytes came in `waited_s`."""
    return min(read_s, read_s + size / MIN_BYTES_PER_S - waited_s)


async def read_body(
    scope: Scope, headers: Fields, receive: Receive, budget: BodyBudget, limits: BodyLimits
) -> bytes | None:
    """Return the whole body, or None if the client has disconnected.

    A body that is too large is refused before all of it is read.
    """
    if _has_body(scope, headers, limits.max_bytes, budget):
        check = _check_file_type if limits.is_file else _check_type
        check(headers, any_type=limits.any_type)
    parts: list[bytes] = []
    size = 0
    with ReadTimeout(limits.read_s) as timeout:
        while True:
            try:
                message = await receive()
            except asyncio.CancelledError:
                raise timeout.error(size) from None
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limits.max_bytes:
                raise RequestTooLarge(
                    "the body is larger than the server accepts; send fewer texts at once"
                )
            budget.hold(size)
            if not message.get("more_body", False):
                return b"".join([*parts, part]) if parts else part
            if part:
                parts.append(part)
                timeout.renew(size)


def _has_body(scope: Scope, headers: Fields, max_bytes: int, budget: BodyBudget) -> bool:
    """Return whether a body follows; refuses it if its content-length is too large."""
    length = headers.get(b"content-length", b"")
    # subtle: int() raises for thousands of digits. The first twenty are already too large.
    size = int(length[:20]) if length.isdigit() else 0
    if size > max_bytes:
        raise RequestTooLarge(
            f"the body has {size} bytes, at most {max_bytes} are accepted; send fewer texts at once"
        )
    budget.check(size)
    return size > 0 or scope["method"] == "POST" or b"transfer-encoding" in headers


def _check_type(headers: Fields, *, any_type: bool) -> None:
    kind = media_type(headers)
    # subtle: a page of any web site may send a body here, without permission, if it has no content-type
    # or that of a form. So no other type than JSON is accepted. A page needs permission for a header with a
    # key, and browsers add only keys of other kinds (Basic): then the type may be missing.
    missing_is_allowed = not kind and secret_in(headers) is not None
    is_json = kind == JSON or kind.endswith(b"+json")
    if not (any_type or is_json or missing_is_allowed):
        given_type = shown(kind.decode("latin-1")) if kind else "missing or empty"
        raise UnsupportedMediaType(
            f"content-type is {given_type}; send application/json (with curl:"
            " -H 'Content-Type: application/json')"
        )
    check_coding(headers)


def _check_file_type(headers: Fields, *, any_type: bool) -> None:
    """Refuse the types that a page of any web site may send without permission, see `_check_type`."""
    kind = media_type(headers)
    missing_is_allowed = not kind and secret_in(headers) is not None
    if kind in SIMPLE_TYPES and not (any_type or missing_is_allowed):
        given_type = shown(kind.decode("latin-1")) if kind else "missing or empty"
        raise UnsupportedMediaType(
            f"content-type is {given_type}; send the file's own type or application/octet-stream (with curl:"
            " -H 'Content-Type: application/octet-stream' --data-binary @FILE)"
        )
    check_coding(headers)


def media_type(headers: Fields) -> bytes:
    """Return the body's media type in small letters, without parameters; empty where none is given."""
    return headers.get(b"content-type", b"").split(b";")[0].strip().lower()


def check_coding(headers: Fields) -> None:
    """Raise UnsupportedMediaType for a body that is compressed."""
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        raise UnsupportedMediaType(
            f"content-encoding {shown(coding.decode('latin-1'))} is not supported; send the body uncompressed"
        )


def decode(body: bytes, kind: type[T], name: str | None = None) -> T:
    """Decode JSON into a msgspec type; raises InvalidRequest with the place and the reason.

    null counts as left out where a key may be left out. A byte order mark is skipped.
    name: of the query parameter that holds the JSON; None for a body.
    """
    if body[:1] == BOM_UTF8[:1]:
        body = body.removeprefix(BOM_UTF8)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if not may_be_forgiven(error):
            raise refusal(error, kind, name) from None
        return _converted(_decoded(body, name), kind, name)
    except UNDECODABLE as error:
        raise not_json(body, error, name) from None


async def decoded(body: bytes, kind: type[T]) -> T:
    """Return what `decode` does; a large body is decoded on a thread."""
    return await prepared(body, partial(decode, kind=kind), UNCOUNTED_BYTES)


async def prepared(
    body: bytes, prepare: Callable[[bytes], T], on_loop: int = PREPARED_ON_LOOP
) -> T:
    """Return what `prepare` makes of a body; on a thread if the body has more than `on_loop` bytes."""
    if len(body) <= on_loop:
        return prepare(body)
    return await off_loop(partial(prepare, body))


async def off_loop(work: Callable[[], T]) -> T:
    """Return what `work` does, on a thread; one such piece of work runs at a time."""
    async with PREPARING.here():
        return await asyncio.to_thread(work)


def _decoded(body: bytes, name: str | None) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNDECODABLE as error:
        raise not_json(body, error, name) from None


def _converted(value: Any, kind: type[T], name: str | None) -> T:
    try:
        return msgspec.convert(forgiven(value, kind), kind)
    except msgspec.ValidationError as error:
        raise refusal(error, kind, name) from None


async def key_in(body: bytes, one: str, other: str) -> str:
    """Return what `key_of` does; a large body is looked at on a thread."""
    return await prepared(body, partial(key_of, one=one, other=other), UNCOUNTED_BYTES)


def key_of(body: bytes, one: str, other: str) -> str:
    """Return which of two keys a JSON object has; raises InvalidRequest if it has both or neither.

    Values are skipped, not decoded. Of 512 texts that takes a tenth of the time of decoding them, and a
    quarter where characters are escaped (2026-11-29, Intel Xeon).
    """
    keys = decode(body, _struct_of(one, other))
    there = {key: getattr(keys, key) for key in (one, other)}
    there = {key: value for key, value in there.items() if value is not msgspec.UNSET}
    # Of two keys, one that is null counts as left out.
    found = [key for key, value in there.items() if len(there) == 1 or bytes(value) != NULL]
    if len(found) != 1:
        raise only_one_of(one, other)
    return found[0]


def only_one_of(one: str, other: str) -> InvalidRequest:
    return InvalidRequest(f'exactly one of "{one}" and "{other}" is needed', param=one)


@cache
def _struct_of(*keys: str) -> type[msgspec.Struct]:
    """Return a type that keeps these keys without decoding their values, and skips all others."""
    raw = msgspec.Raw | msgspec.UnsetType
    return msgspec.defstruct("Keys", [(key, raw, msgspec.UNSET) for key in keys])
