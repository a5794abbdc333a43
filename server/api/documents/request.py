"""Requests on the documents of a collection: their types, limits and checks."""

from typing import Any

import msgspec

from server.api.body import decode
from server.api.operation import checked_filter
from server.collections.document_limits import check_documents
from server.errors import InvalidRequest, RequestTooLarge
from server.store.filter_tree import Filter
from server.store.records import Document, text_id

MAX_PAGE = 1000
# Of one request. A document costs 0.1 ms to store besides its vectors, and an id as much to remove.
MAX_DOCUMENTS = MAX_IDS = 10_000


class NewDocument(msgspec.Struct, forbid_unknown_fields=True):
    """A document to store.

    id: without one it is derived from the text, so that a text sent twice is stored once.
    """

    text: str
    id: str | int | None = None
    title: str | None = None
    metadata: dict[str, Any] = {}


class AddRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Documents to store.

    replace: whether documents of the same ids are replaced; false refuses them with 409.
    """

    documents: list[NewDocument]
    replace: bool = True


class Select(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None


def listed(filter: bytes) -> Filter | None:
    """Return the filter whose documents are listed."""
    return checked_filter(decode(filter, dict, "filter"))


def removal(body: bytes) -> list[str] | Filter:
    """Return the ids to remove, or the filter."""
    request = decode(body, Select)
    if (request.ids is None) == (request.filter is None):
        raise InvalidRequest('exactly one of "ids" and "filter" is needed', param="ids")
    if request.ids is not None:
        if len(request.ids) > MAX_IDS:
            raise RequestTooLarge(
                f"the request has {len(request.ids)} ids, at most {MAX_IDS} are removed at once;"
                " split it, or give a filter"
            )
        return [str(id) for id in request.ids]
    filter = checked_filter(request.filter)
    if filter is None:
        raise InvalidRequest(
            "the filter keeps every document, so all would be removed; delete the collection instead",
            param="filter",
        )
    return filter


def counted(body: bytes) -> Filter | None:
    """Return the filter whose documents are counted."""
    request = decode(body, Select)
    if request.ids is not None:
        raise InvalidRequest('"ids" are not counted; give a "filter" or nothing', param="ids")
    return checked_filter(request.filter)


def added(body: bytes) -> tuple[bool, list[Document]]:
    """Return whether documents are replaced, and the documents, within the limits."""
    request = decode(body, AddRequest)
    number = len(request.documents)
    if number > MAX_DOCUMENTS:
        raise RequestTooLarge(
            f"the request has {number} documents, at most {MAX_DOCUMENTS} are stored at once; split it"
        )
    documents = [
        Document(
            text_id(given.text) if given.id is None else str(given.id),
            given.text,
            given.title,
            given.metadata,
        )
        for given in request.documents
    ]
    check_documents(documents)
    return request.replace, documents
