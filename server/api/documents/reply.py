"""Replies about the documents of a collection."""

from typing import Any

import msgspec

from server.api.documents.vectors import Written
from server.api.replies import base64_rows
from server.store.reading.parts import Parts
from server.store.records import Document, Span


class Added(msgspec.Struct):
    """The result of storing documents.

    ids: in the order of the request. stored: how many were new or changed. characters_left_out: how many
    characters are stored, but belong to no part, because they are no text; absent where there is none. queued:
    true where the documents are safe on this server and wait for the vector database; absent otherwise.
    """

    ids: list[str]
    stored: int
    characters_left_out: int | msgspec.UnsetType = msgspec.UNSET
    queued: bool | msgspec.UnsetType = msgspec.UNSET


class Count(msgspec.Struct):
    """The number of documents.

    warnings: conditions of the filter that no stored value can meet, and how many writes wait for the vector
    database; absent where there is none.
    """

    count: int
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Removed(msgspec.Struct):
    """The result of removing documents.

    warnings: conditions of the filter that no stored value can meet; absent where there is none. queued: true
    where the removal is safe on this server and waits for the vector database, and then ids count that may not
    have been there; absent otherwise.
    """

    removed: int
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    queued: bool | msgspec.UnsetType = msgspec.UNSET


class Stored(msgspec.Struct):
    """A document as it is stored.

    vector: of the whole document, where vectors were asked for and it has one part. vectors: otherwise, one
    for each of parts, which are the characters [begin, end] of the text.
    """

    id: str
    text: str
    title: str | None
    metadata: dict[str, Any]
    vector: Written | msgspec.UnsetType = msgspec.UNSET
    vectors: list[Written] | msgspec.UnsetType = msgspec.UNSET
    parts: list[tuple[int, int]] | msgspec.UnsetType = msgspec.UNSET


class Got(msgspec.Struct):
    """Documents in the order of their ids. missing: ids that are not stored."""

    documents: list[Stored]
    missing: list[str]


class ChangedDocuments(msgspec.Struct):
    """The result of a change of metadata.

    changed: how many documents are different now. missing: ids that are not stored. warnings: conditions of
    the filter that no stored value can meet; absent where there is none. queued: true where the change is safe
    on this server and waits for the vector database; absent otherwise.
    """

    changed: int
    missing: list[str]
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    queued: bool | msgspec.UnsetType = msgspec.UNSET


class Page(msgspec.Struct):
    """A page of documents, oldest first.

    next: what to give as `after` for the next page, null at the end. warnings: conditions of the filter
    that no stored value can meet, and how many writes wait for the vector database; absent where there is none.
    """

    documents: list[Stored]
    next: str | None
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def stored_form(document: Document) -> Stored:
    """Return a document as replies have it."""
    return Stored(document.id, document.text, document.title, dict(document.metadata))


def with_vectors(document: Document, parts: Parts, *, as_base64: bool) -> Stored:
    """Return a document with the vectors of its parts, as a request that stores it has them."""
    found = stored_form(document)
    rows: list[Written] = [*base64_rows(parts.vectors)] if as_base64 else parts.vectors.tolist()
    if parts.spans == (Span(0, len(document.text)),):
        found.vector = rows[0]
    else:
        found.vectors, found.parts = rows, [(begin, end) for begin, end in parts.spans]
    return found
