"""What the files of a page have in common: their types, their headers, and what a browser keeps of them."""

from collections.abc import Mapping

from starlette.types import Scope

from server.api.replies import Headers

HTML = b"text/html; charset=utf-8"
TYPES: Mapping[str, bytes] = {
    ".html": HTML,
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".map": b"application/json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".txt": b"text/plain; charset=utf-8",
}
NOSNIFF = (b"x-content-type-options", b"nosniff")
# Also for what can hold links.
SECURITY: Headers = [NOSNIFF, (b"referrer-policy", b"no-referrer")]
# A copy is used again only after the server has said that it is the same: names stay, contents change.
CACHING = (b"cache-control", b"no-cache")


def header(scope: Scope, name: bytes) -> bytes:
    """Return the value of a request's header, empty where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def is_kept(scope: Scope, tag: bytes) -> bool:
    """Return whether the client has the version of a file with this etag, so that 304 is the answer."""
    given = header(scope, b"if-none-match").split(b",")
    return tag in [each.strip().removeprefix(b"W/") for each in given]
