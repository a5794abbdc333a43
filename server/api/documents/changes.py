"""PATCH: metadata changed alone, by id, by several ids or by a filter."""

import msgspec

from server.api.body import prepared
from server.api.documents.reply import ChangedDocuments, stored_form
from server.api.documents.request import change, patch
from server.api.operation import CollectionCall, readable_of, waiting_of, warnings_of
from server.api.replies import Reply, json_body
from server.api.written import written
from server.collections.external.abilities import refusal
from server.collections.external.collection import ExternalCollection
from server.collections.writing.merge_patch import Patch
from server.collections.writing.metadata import change_by_filter, change_by_ids
from server.errors import DocumentNotFound, shown
from server.store.filters.tree import Filter


async def change_one(call: CollectionCall) -> Reply:
    """Change the metadata of one document by a merge patch; nothing is embedded again."""
    id = str(call.scope["path_params"]["id"])
    collection = readable_of(call)
    patches = {id: await prepared(call.body, patch)}
    if isinstance(collection, ExternalCollection):
        found, _ = await collection.change(patches)
    else:
        found = await change_by_ids(collection, patches, call.collections.reads)
    if found.missing:
        raise DocumentNotFound(f"there is no document {shown(id)}")
    document = found.documents[0] if found.documents else await collection.get(id)
    if document is None:
        raise DocumentNotFound(f"there is no document {shown(id)} any more")
    reply = await written(
        call.collections.reads, len(document.text), lambda: json_body(stored_form(document))
    )
    return reply._replace(headers=waiting_of(collection))


async def change_many(call: CollectionCall) -> Reply:
    """Change the metadata of documents, chosen by ids or by a filter, all or none."""
    collection = readable_of(call)
    chosen = await prepared(call.body, change)
    if isinstance(collection, ExternalCollection):
        return await _change_elsewhere(collection, chosen)
    if isinstance(chosen, dict):
        found = await change_by_ids(collection, chosen, call.collections.reads)
        return Reply(json_body(ChangedDocuments(len(found.documents), found.missing)))
    filter, asked = chosen
    warnings = await warnings_of(collection, filter)
    found = await change_by_filter(collection, filter, asked, call.collections.reads)
    return Reply(json_body(ChangedDocuments(len(found.documents), [], warnings)))


async def _change_elsewhere(
    collection: ExternalCollection, chosen: dict[str, Patch] | tuple[Filter, Patch]
) -> Reply:
    if not isinstance(chosen, dict):
        raise refusal(
            collection.name,
            collection.database,
            "to change metadata by a filter",
            "list the documents, and name them by their ids",
            "filter",
        )
    found, outcome = await collection.change(chosen)
    queued = outcome.queued or msgspec.UNSET
    return Reply(json_body(ChangedDocuments(outcome.number, found.missing, queued=queued)))
