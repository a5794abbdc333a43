"""PATCH: metadata changed alone, by id, by several ids or by a filter."""

from server.api.body import prepared
from server.api.documents.reply import ChangedDocuments, stored_form
from server.api.documents.request import change, patch
from server.api.operation import CollectionCall, collection_of, warnings_of
from server.api.replies import Reply, json_body
from server.api.written import written
from server.collections.writing.metadata import change_by_filter, change_by_ids
from server.errors import DocumentNotFound, shown


async def change_one(call: CollectionCall) -> Reply:
    """Change the metadata of one document by a merge patch; nothing is embedded again."""
    id = str(call.scope["path_params"]["id"])
    collection = collection_of(call)
    patches = {id: await prepared(call.body, patch)}
    found = await change_by_ids(collection, patches, call.collections.reads)
    if found.missing:
        raise DocumentNotFound(f"there is no document {shown(id)}")
    document = found.documents[0] if found.documents else await collection.get(id)
    if document is None:
        raise DocumentNotFound(f"there is no document {shown(id)} any more")
    return await written(
        call.collections.reads, len(document.text), lambda: json_body(stored_form(document))
    )


async def change_many(call: CollectionCall) -> Reply:
    """Change the metadata of documents, chosen by ids or by a filter, all or none."""
    collection = collection_of(call)
    chosen = await prepared(call.body, change)
    if isinstance(chosen, dict):
        found = await change_by_ids(collection, chosen, call.collections.reads)
        return Reply(json_body(ChangedDocuments(len(found.documents), found.missing)))
    filter, asked = chosen
    warnings = await warnings_of(collection, filter)
    found = await change_by_filter(collection, filter, asked, call.collections.reads)
    return Reply(json_body(ChangedDocuments(len(found.documents), [], warnings)))
