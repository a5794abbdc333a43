"""What is possible with a collection in a vector database, in one table; the how-to page shows the same.

Everything else that a request may ask of a collection is refused with a sentence. Nothing is answered in part.
"""

from collections.abc import Collection
from typing import Final

from server.errors import InvalidRequest
from server.store.words.asked import Asked

# Keys of a search that only a collection of this server answers, each with what helps instead.
SEARCH: Final = {
    "cursor": 'page with "offset"',
    "explain": "leave it out",
    "include_vectors": "get the document with its vectors: POST /documents/get",
    "like": 'search with a "query" or a "vector"',
    "group_by": 'ask for more hits with "top_k"',
    "sort": "sort the hits that you get",
    "diversity": 'ask for more hits with "top_k"',
    "facets": "count with a filter: POST /documents/count",
}
# Operations on a collection, by method and path behind its name.
OPERATIONS: Final = frozenset(
    {
        "POST /documents",
        "GET /documents",
        "GET /documents/{id}",
        "POST /documents/get",
        "POST /documents/count",
        "POST /documents/export",
        "POST /documents/delete",
        "DELETE /documents/{id}",
        "PATCH /documents",
        "PATCH /documents/{id}",
        "POST /files",
        "POST /search",
        "GET /stats",
        "POST /transfer",
        "GET /transfer",
        "DELETE /transfer",
        "GET /outbox",
        "POST /outbox/retry",
        "POST /outbox/set-aside",
        "DELETE /outbox/set-aside",
    }
)
# Hits that "offset" and "top_k" reach together: each is found among several chunks.
MOST_HITS = 5_000


def check_search(
    name: str, database: str, asked: Collection[str], mode: str, fusion: str | None, reach: int
) -> None:
    """Raise InvalidRequest for a search that a database cannot answer.

    asked: the keys of the request that ask for something. fusion: as the request names it, None where it does
    not. reach: hits up to the last that is wanted.
    """
    for key, instead in SEARCH.items():
        if key in asked:
            raise refusal(name, database, f'"{key}"', instead, key)
    if fusion == "blend":
        instead = 'leave "fusion" out: ranks are fused'
        raise refusal(name, database, 'fusion "blend"', instead, "fusion")
    if "collections" in asked and mode != "dense":
        what = f'mode "{mode}" with "collections"'
        raise refusal(name, database, what, 'search in mode "dense"', "mode")
    if "parts" in asked and mode == "hybrid":
        what = '"parts" in mode "hybrid"'
        raise refusal(name, database, what, 'search in mode "dense"', "parts")
    if reach > MOST_HITS:
        raise InvalidRequest(
            f"offset and top_k reach hit {reach}; {MOST_HITS} is the last in collection {name!r}, which is kept"
            f" in vector database {database!r}; narrow the search by a filter",
            param="offset",
        )


def check_words(name: str, database: str, asked: Asked) -> None:
    """Raise InvalidRequest for a query with phrases or exclusions, which no database here evaluates."""
    for quotes, what in (
        (asked.required, "a quoted phrase"),
        (asked.excluded, "a minus that excludes"),
    ):
        if quotes:
            instead = (
                f'leave {what} out, put it into a filter on "$text", or search in mode "dense"'
            )
            raise refusal(name, database, f"{what} in a query", instead, "query")


def refusal(
    name: str, database: str, what: str, instead: str, param: str | None = None
) -> InvalidRequest:
    """Return the error for what only a collection of this server can do."""
    return InvalidRequest(
        f"{what} is not possible in collection {name!r}, which is kept in vector database {database!r};"
        f" {instead}",
        param=param,
    )
