"""Documents of a collection, in the native format: store, read, list, count, remove."""

from functools import partial
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from server.api.body import decode, prepared
from server.api.decoding import check_parameters, whole_number
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    checked_filter,
    collection_of,
    warnings_of,
    writable_of,
)
from server.api.replies import Reply, json_body
from server.api.written import written
from server.collections.document_limits import check_documents
from server.errors import DocumentNotFound, InvalidRequest, RequestTooLarge, shown
from server.store.filters.tree import Filter
from server.store.records import Document, text_id

MAX_PAGE = 1000
# Of one request. A document costs 0.1 ms to store besides its vectors, and an id as much to remove.
MAX_DOCUMENTS = MAX_IDS = 10_000
OPTIONS = ("limit", "after", "filter")


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


class Added(msgspec.Struct):
    """The result of storing documents.

    ids: in the order of the request. stored: how many were new or changed.
    """

    ids: list[str]
    stored: int


class Select(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None


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


def inside() -> list[CollectionOperation]:
    """Return the operations on the documents of one collection."""
    on = partial(CollectionOperation, NATIVE)
    many, one = "/documents", "/documents/{id:path}"
    return [
        on("POST", many, add, "Store documents", "write", (AddRequest,), (Added,)),
        on("GET", many, page, "List documents", "search", response=(Page,), query=OPTIONS),
        on("POST", f"{many}/delete", remove, "Remove documents", "write", (Select,), (Removed,)),
        on("POST", f"{many}/count", count, "Count documents", "search", (Select,), (Count,)),
        on("GET", one, get, "One document", "search", response=(Stored,)),
        on("DELETE", one, remove_one, "Remove one document", "write", response=(Removed,)),
    ]


async def add(call: CollectionCall) -> Reply:
    # Before the body is decoded: a collection that is not there is refused.
    collection_of(call)
    replace, documents = await prepared(call.body, _documents)
    if not documents:
        return Reply(json_body(Added([], 0)))
    stored = await (await writable_of(call)).add(documents, replace=replace)
    return Reply(json_body(Added([document.id for document in documents], stored)))


async def get(call: CollectionCall) -> Reply:
    id = str(call.scope["path_params"]["id"])
    found = await collection_of(call).get(id)
    if found is None:
        raise DocumentNotFound(f"there is no document {shown(id)}")
    return await written(
        call.collections.reads, len(found.text), lambda: json_body(stored_form(found))
    )


async def page(call: CollectionCall) -> Reply:
    """List documents, oldest first; a page whose texts are long is shorter than its limit."""
    collection = collection_of(call)
    options = QueryParams(call.scope["query_string"])
    check_parameters(options, OPTIONS)
    limit = whole_number(options, "limit", default=100, low=1, high=MAX_PAGE)
    after = whole_number(options, "after", default=0, low=0, high=2**63 - 1)
    filter = await prepared(options.get("filter", "{}").encode(), _listed)
    found, cut = await collection.page_within(after, limit, filter)
    following = str(found[-1][0]) if cut or len(found) == limit else None
    warnings = await warnings_of(collection, filter)
    size = sum(len(document.text) for _, document in found)

    def write() -> bytes:
        return json_body(
            Page([stored_form(document) for _, document in found], following, warnings)
        )

    return await written(call.collections.reads, size, write)


async def remove_one(call: CollectionCall) -> Reply:
    id = str(call.scope["path_params"]["id"])
    if not await collection_of(call).delete([id]):
        raise DocumentNotFound(f"there is no document {shown(id)}")
    return Reply(json_body(Removed(1)))


async def remove(call: CollectionCall) -> Reply:
    """Remove documents by ids or by filter; one is needed, so that nothing is removed by mistake."""
    collection = collection_of(call)
    chosen = await prepared(call.body, _removal)
    if isinstance(chosen, list):
        return Reply(json_body(Removed(await collection.delete(chosen))))
    warnings = await warnings_of(collection, chosen)
    return Reply(json_body(Removed(await collection.delete_where(chosen), warnings)))


async def count(call: CollectionCall) -> Reply:
    collection = collection_of(call)
    filter = await prepared(call.body, _counted)
    number = await collection.count(filter)
    return Reply(json_body(Count(number, await warnings_of(collection, filter))))


def _listed(filter: bytes) -> Filter | None:
    """Return the filter whose documents are listed."""
    return checked_filter(decode(filter, dict, "filter"))


def _removal(body: bytes) -> list[str] | Filter:
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


def _counted(body: bytes) -> Filter | None:
    """Return the filter whose documents are counted."""
    request = decode(body, Select)
    if request.ids is not None:
        raise InvalidRequest('"ids" are not counted; give a "filter" or nothing', param="ids")
    return checked_filter(request.filter)


def _documents(body: bytes) -> tuple[bool, list[Document]]:
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


def stored_form(document: Document) -> Stored:
    """Return a document as replies have it."""
    return Stored(document.id, document.text, document.title, dict(document.metadata))
