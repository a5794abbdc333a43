"""A cursor: where the next page of a search begins, and which state of the collection the pages show."""

import base64
import binascii
import hashlib
from typing import NamedTuple

import msgspec

from server.errors import InvalidRequest

# Bytes of a cursor: a revision has 32 characters.
MAX_BYTES = 256


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """The place of a page.

    offset: hits before it. revision: of the collection when the first page was read; None where it held
    nothing. search: a digest of the request, so that a cursor is not used for another search.
    """

    offset: int
    revision: str | None
    search: str

    def encoded(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


class Page(NamedTuple):
    """The page that a request asks for. cursor: None where it is the first, or has none."""

    offset: int
    cursor: Cursor | None


def digest(request: msgspec.Struct) -> str:
    """Return a digest of a request, whatever its page."""
    keys = msgspec.structs.asdict(request)
    same = {key: value for key, value in keys.items() if key not in ("cursor", "offset", "top_k")}
    return hashlib.blake2b(msgspec.json.encode(same), digest_size=8).hexdigest()


def page_of(given: str | None, offset: int, request: msgspec.Struct, most: int) -> Page:
    """Return the page of a request; raises InvalidRequest. most: hits that a cursor reaches."""
    if not given:
        return Page(offset, None)
    cursor = _decoded(given)
    if cursor.search != digest(request):
        raise InvalidRequest(
            "the cursor belongs to another search; repeat the request of its first page, or begin again"
            ' with "cursor": ""',
            param="cursor",
        )
    if not 0 <= cursor.offset <= most:
        raise _unknown()
    return Page(cursor.offset, cursor)


def _decoded(given: str) -> Cursor:
    if len(given) > MAX_BYTES:
        raise _unknown()
    try:
        body = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(body, type=Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _unknown() from None


def _unknown() -> InvalidRequest:
    return InvalidRequest(
        'the cursor is not one of this server; begin again with "cursor": ""', param="cursor"
    )
