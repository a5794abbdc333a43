"""Documents of a collection, in the native format: store, read, list, count, remove."""

from functools import partial

import msgspec
from starlette.datastructures import QueryParams

from server.api.body import prepared
from server.api.decoding import check_parameters, parameter, whole_number
from server.api.documents.by_ids import get_many
from server.api.documents.changes import change_many, change_one
from server.api.documents.export import export
from server.api.documents.lines import OPTIONS as LINE_OPTIONS
from server.api.documents.lines import TYPES as LINE_TYPES
from server.api.documents.lines import LinesStored, add_lines
from server.api.documents.reply import (
    Added,
    ChangedDocuments,
    Count,
    Got,
    Page,
    Removed,
    Stored,
    stored_form,
)
from server.api.documents.request import (
    MAX_PAGE,
    AddRequest,
    ChangeRequest,
    ExportRequest,
    GetRequest,
    MetadataPatch,
    Select,
    added,
    counted,
    listed,
    removal,
)
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    accepting_of,
    readable_of,
    warnings_of,
)
from server.api.replies import NDJSON, Reply, json_body
from server.api.written import written
from server.collections.external.collection import ExternalCollection
from server.collections.writing.given import add_given
from server.collections.writing.removal import remove as removed
from server.errors import DocumentNotFound, InvalidRequest, shown

OPTIONS = ("limit", "after", "filter")


def inside() -> list[CollectionOperation]:
    """Return the operations on the documents of one collection."""
    on = partial(CollectionOperation, NATIVE)
    many, one = "/documents", "/documents/{id:path}"
    return [
        on(
            *("POST", many, add, "Store documents", "write"),
            *((AddRequest,), (Added, LinesStored)),
            query=LINE_OPTIONS,
            stream=add_lines,
            stream_types=LINE_TYPES,
        ),
        on(
            *("POST", f"{many}/export", export, "Export documents", "search"),
            request=(ExportRequest,),
            plain=NDJSON.decode(),
        ),
        on("GET", many, page, "List documents", "search", response=(Page,), query=OPTIONS),
        on("POST", f"{many}/delete", remove, "Remove documents", "write", (Select,), (Removed,)),
        on("POST", f"{many}/count", count, "Count documents", "search", (Select,), (Count,)),
        on("POST", f"{many}/get", get_many, "Several documents", "search", (GetRequest,), (Got,)),
        on(
            *("PATCH", many, change_many, "Change metadata", "write"),
            *((ChangeRequest,), (ChangedDocuments,)),
        ),
        on("GET", one, get, "One document", "search", response=(Stored,)),
        on(
            *("PATCH", one, change_one, "Change metadata of one document", "write"),
            *((MetadataPatch,), (Stored,)),
        ),
        on("DELETE", one, remove_one, "Remove one document", "write", response=(Removed,)),
    ]


async def add(call: CollectionCall) -> Reply:
    """Store documents that are sent whole, all or none, or as lines of JSON, piece by piece."""
    for name in QueryParams(call.scope["query_string"]):
        if name in LINE_OPTIONS:
            raise InvalidRequest(
                f"{parameter(name)} is for lines of JSON (content-type: application/x-ndjson); give"
                f' "{name}" in the body',
                param=name,
            )
    # Before the body is decoded: a collection that is not there is refused.
    info = readable_of(call).info
    given = await prepared(call.body, partial(added, info=info))
    if not given.documents:
        return Reply(json_body(Added([], 0)))
    live = await accepting_of(call)
    outcome = await add_given(
        live, given.documents, given.parts, given.embedder, replace=given.replace
    )
    ids = [document.id for document in given.documents]
    noise = given.noise or msgspec.UNSET
    return Reply(json_body(Added(ids, outcome.number, noise, outcome.queued or msgspec.UNSET)))


async def get(call: CollectionCall) -> Reply:
    id = str(call.scope["path_params"]["id"])
    found = await readable_of(call).get(id)
    if found is None:
        raise DocumentNotFound(f"there is no document {shown(id)}")
    return await written(
        call.collections.reads, len(found.text), lambda: json_body(stored_form(found))
    )


async def page(call: CollectionCall) -> Reply:
    """List documents, oldest first; a page whose texts are long is shorter than its limit."""
    collection = readable_of(call)
    options = QueryParams(call.scope["query_string"])
    check_parameters(options, OPTIONS)
    limit = whole_number(options, "limit", default=100, low=1, high=MAX_PAGE)
    after = whole_number(options, "after", default=0, low=0, high=2**63 - 1)
    filter = await prepared(options.get("filter", "{}").encode(), listed)
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
    outcome = await removed(readable_of(call), [id])
    if not outcome.number:
        raise DocumentNotFound(f"there is no document {shown(id)}")
    return Reply(json_body(Removed(1, queued=outcome.queued or msgspec.UNSET)))


async def remove(call: CollectionCall) -> Reply:
    """Remove documents by ids or by filter; one is needed, so that nothing is removed by mistake."""
    collection = readable_of(call)
    chosen = await prepared(call.body, removal)
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    if not isinstance(chosen, list) and not isinstance(collection, ExternalCollection):
        warnings = await warnings_of(collection, chosen)
    outcome = await removed(collection, chosen)
    return Reply(json_body(Removed(outcome.number, warnings, outcome.queued or msgspec.UNSET)))


async def count(call: CollectionCall) -> Reply:
    collection = readable_of(call)
    filter = await prepared(call.body, counted)
    number = await collection.count(filter)
    return Reply(json_body(Count(number, await warnings_of(collection, filter))))
