"""Paths as routes: a path is matched whole, and paths of dialects also with spare slashes."""

import re

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

SLASHES = re.compile("//+")
# What decoding puts where the bytes of a path are not UTF-8, and how a client writes that character itself.
REPLACED, WRITTEN = "\ufffd", b"%EF%BF%BD"


class WholeRoute(Route):
    """A route whose pattern ends where the path ends.

    subtle: Starlette's pattern ends in "$", which also matches before a final line feed, and its "." matches
    no line feed. So `/documents/A%0A` would reach the document A, and `/metrics%0A` the metrics.
    """

    def __init__(self, path: str, endpoint: ASGIApp, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        pattern = self.path_regex.pattern.removesuffix("$")
        self.path_regex = re.compile(rf"{pattern}\Z", re.DOTALL)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return how the request matches; a path that is not UTF-8 matches none."""
        if scope["type"] == "http" and not is_utf8(scope):
            return Match.NONE, {}
        return super().matches(scope)


def is_utf8(scope: Scope) -> bool:
    """Return whether a request's path is UTF-8.

    Bytes that are not become U+FFFD in the decoded path, so `%FE` and `%FF` would name one document.
    """
    replaced = scope["path"].count(REPLACED)
    return not replaced or replaced == scope.get("raw_path", b"").upper().count(WRITTEN)


def without_spare_slashes(path: str) -> str:
    """Return the path with single slashes between its parts, and none at its end.

    Clients join a base URL that ends in a slash with a path that begins with one.
    """
    return SLASHES.sub("/", path).rstrip("/") or "/"
