"""Replies about the documents of a collection."""

from typing import Any

import msgspec

from server.store.records import Document


class Added(msgspec.Struct):
    """The result of storing documents.

    ids: in the order of the request. stored: how many were new or changed.
    """

    ids: list[str]
    stored: int


class Count(msgspec.Struct):
    """warnings: conditions of the filter that no stored value can meet; absent where there is none."""

    count: int
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Removed(msgspec.Struct):
    """warnings: conditions of the filter that no stored value can meet; absent where there is none."""

    removed: int
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class Stored(msgspec.Struct):
    id: str
    text: str
    title: str | None
    metadata: dict[str, Any]


class Page(msgspec.Struct):
    """A page of documents, oldest first.

    next: what to give as `after` for the next page, null at the end. warnings: conditions of the filter
    that no stored value can meet; absent where there is none.
    """

    documents: list[Stored]
    next: str | None
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def stored_form(document: Document) -> Stored:
    """Return a document as replies have it."""
    return Stored(document.id, document.text, document.title, dict(document.metadata))
