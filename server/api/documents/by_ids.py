"""POST /documents/get: several documents by their ids, with their vectors on request."""

from collections.abc import Sequence
from functools import partial

from server.api.body import prepared
from server.api.documents.reply import Got, stored_form, with_vectors
from server.api.documents.request import asked
from server.api.operation import CollectionCall, readable_of
from server.api.replies import Reply, json_body
from server.api.written import written
from server.collections.reading.by_ids import Found, documents_by_ids

# Bytes of a number of a vector in a reply.
NUMBER_BYTES = {"float": 12, "base64": 6}


async def get_many(call: CollectionCall) -> Reply:
    """Return documents in the order of their ids; those that are not stored are listed."""
    collection = readable_of(call)
    request = await prepared(call.body, asked)
    ids = [str(id) for id in request.ids]
    number_bytes = NUMBER_BYTES[request.encoding_format] if request.include_vectors else 0
    found = await documents_by_ids(collection, ids, number_bytes)
    size = sum(len(document.text) for document in found.documents.values())
    size += number_bytes * sum(each.vectors.size for each in found.parts.values())
    as_base64 = request.encoding_format == "base64"
    return await written(
        call.collections.reads, size, partial(_written, ids, found, as_base64=as_base64)
    )


def _written(ids: Sequence[str], found: Found, *, as_base64: bool) -> bytes:
    documents = [
        with_vectors(document, found.parts[id], as_base64=as_base64)
        if id in found.parts
        else stored_form(document)
        for id, document in found.documents.items()
    ]
    return json_body(Got(documents, [id for id in dict.fromkeys(ids) if id not in found.documents]))
