"""POST /documents/export: all documents of one moment as lines of JSON, sent as they are read."""

from functools import partial

from server.api.body import prepared
from server.api.documents.reply import stored_form, with_vectors
from server.api.documents.request import exported as requested
from server.api.operation import CollectionCall, readable_of, waiting_of
from server.api.replies import NDJSON, Reply, json_body
from server.api.streaming.reply_stream import begun
from server.collections.reading.export import Export, exported
from server.store.reading.parts import Parts
from server.store.records import Document


async def export(call: CollectionCall) -> Reply:
    """Send all documents, or those that a filter keeps, oldest first, one a line.

    Each line is a document as `POST /documents` takes it.
    """
    collection = readable_of(call)
    request, filter = await prepared(call.body, requested)
    write = partial(line, as_base64=request.encoding_format == "base64")
    pages = exported(
        collection, Export(filter, request.include_vectors, write), call.collections.reads
    )
    headers = waiting_of(collection)
    return Reply(b"", headers=headers, content_type=NDJSON, stream=await begun(pages))


def line(document: Document, parts: Parts | None, *, as_base64: bool) -> bytes:
    """Return a document as a line."""
    if parts is None:
        return json_body(stored_form(document)) + b"\n"
    return json_body(with_vectors(document, parts, as_base64=as_base64)) + b"\n"
