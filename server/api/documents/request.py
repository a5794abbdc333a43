"""Requests on the documents of a collection: their types, limits and checks."""

from typing import Any, Literal, NamedTuple

import msgspec

from server.api.body import decode
from server.api.documents.vectors import Written, parts_in
from server.api.operation import checked_filter
from server.collections.document_limits import check_documents, checked_paths
from server.collections.writing.merge_patch import Patch
from server.errors import EmptyInput, InvalidRequest, RequestTooLarge
from server.store.filters.tree import Filter
from server.store.passages.noise import noise_length
from server.store.reading.parts import Parts
from server.store.records import Document, Info, text_id

MAX_PAGE = 1000
# Of one request. A document costs 0.1 ms to store besides its vectors, and an id as much to remove.
MAX_DOCUMENTS = MAX_IDS = 10_000
Encoding = Literal["float", "base64"]


class NewDocument(msgspec.Struct, forbid_unknown_fields=True):
    """A document to store.

    text: may be left out only where a vector is given and no model of this server makes the collection's
    vectors. id: without one it is derived from the text, so that a text sent twice is stored once. vector:
    of the whole document, numbers or base64 of float32; it is stored as given and nothing is embedded.
    vectors: one for each of parts, which are the characters [begin, end] of the text.
    """

    text: str | None = None
    id: str | int | None = None
    title: str | None = None
    metadata: dict[str, Any] = {}
    vector: Written | None = None
    vectors: list[Written] | None = None
    parts: list[tuple[int, int]] | None = None


class AddRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Documents to store.

    replace: whether documents of the same ids are replaced; false refuses them with 409. embedder: what
    made the vectors that documents bring.
    """

    documents: list[NewDocument]
    replace: bool = True
    embedder: str | None = None


class Select(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None


class GetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Documents to read. include_vectors: with the vectors of their parts; encoding_format: how these are
    written, base64 as float32.
    """

    ids: list[str | int]
    include_vectors: bool = False
    encoding_format: Encoding = "float"


class ExportRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Documents to export. filter: left out, all of them. include_vectors, encoding_format: as of GetRequest."""

    filter: dict[str, Any] | None = None
    include_vectors: bool = False
    encoding_format: Encoding = "float"


class MetadataPatch(msgspec.Struct, forbid_unknown_fields=True):
    """A change of a document's metadata.

    metadata: a merge patch (RFC 7396): null removes a key, objects are merged, other values replace.
    """

    metadata: dict[str, Any]


class DocumentPatch(msgspec.Struct, forbid_unknown_fields=True):
    id: str | int
    metadata: dict[str, Any]


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A change of the metadata of several documents.

    metadata: a merge patch (RFC 7396) for those of `ids` or `filter`. documents: instead of these, a merge
    patch for each document.
    """

    metadata: dict[str, Any] | None = None
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None
    documents: list[DocumentPatch] | None = None


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


class Given(NamedTuple):
    """Documents to store. parts: those that bring vectors, by id. noise: characters that chunks leave out."""

    documents: list[Document]
    parts: dict[str, Parts]
    noise: int
    replace: bool
    embedder: str | None


def added(body: bytes, info: Info) -> Given:
    """Return the documents of a request to the collection, within the limits."""
    request = decode(body, AddRequest)
    number = len(request.documents)
    if number > MAX_DOCUMENTS:
        raise RequestTooLarge(
            f"the request has {number} documents, at most {MAX_DOCUMENTS} are stored at once; split it"
        )
    documents: list[Document] = []
    parts: dict[str, Parts] = {}
    for index, given in enumerate(request.documents):
        document, own = document_of(given, info, f"documents[{index}]")
        documents.append(document)
        # Where an id comes twice, the last counts.
        parts.pop(document.id, None)
        if own is not None:
            parts[document.id] = own
    check_documents(documents, parts if info.embedder else ())
    noise = sum(noise_of(each, info) for each in documents if each.id not in parts)
    return Given(documents, parts, noise, request.replace, request.embedder)


def noise_of(document: Document, info: Info) -> int:
    """Return how many characters of a document no chunk has, because they are no text."""
    length = len(document.text) + len(document.title or "")
    # What is shorter stays whole, see `chunk_documents`.
    if info.chunks is None or length < info.chunks.size:
        return 0
    return noise_length(document.text)


def document_of(given: NewDocument, info: Info, place: str) -> tuple[Document, Parts | None]:
    """Return a document and the vectors that it brings; raises InvalidRequest or EmptyInput."""
    text = given.text or ""
    if given.text is None and given.vector is None and given.vectors is None:
        raise InvalidRequest(f'{place} has no "text"', param="documents")
    if given.id is None and not text:
        needs = ", and without a text it needs an id" if info.embedder else ""
        raise EmptyInput(f"{place}.text is empty{needs}", param="documents")
    id = text_id(text) if given.id is None else str(given.id)
    parts = parts_in(text, given.vector, given.vectors, given.parts, info, place)
    return Document(id, text, given.title, given.metadata), parts


def asked(body: bytes) -> GetRequest:
    """Return a request for documents by their ids, within the limits."""
    request = decode(body, GetRequest)
    if len(request.ids) > MAX_PAGE:
        raise RequestTooLarge(
            f"the request has {len(request.ids)} ids, at most {MAX_PAGE} documents are read at once; split it"
        )
    return request


def exported(body: bytes) -> tuple[ExportRequest, Filter | None]:
    """Return a request to export documents, and the filter that keeps them."""
    request = decode(body, ExportRequest)
    return request, checked_filter(request.filter)


def patch(body: bytes) -> Patch:
    """Return the merge patch for one document."""
    found = decode(body, MetadataPatch).metadata
    checked_paths(found, "metadata")
    return found


def change(body: bytes) -> dict[str, Patch] | tuple[Filter, Patch]:
    """Return a merge patch for each id, or a filter and the patch for all that it keeps."""
    request = decode(body, ChangeRequest)
    ways = (request.ids, request.filter, request.documents)
    if sum(way is not None for way in ways) != 1:
        raise InvalidRequest(
            'exactly one of "ids", "filter" and "documents" is needed', param="ids"
        )
    if (request.metadata is None) == (request.documents is None):
        raise InvalidRequest(
            '"metadata" goes with "ids" or "filter"; in "documents" each has its own',
            param="metadata",
        )
    if request.documents is not None:
        _check_number(len(request.documents))
        for index, each in enumerate(request.documents):
            checked_paths(each.metadata, f"documents[{index}].metadata")
        return {str(each.id): each.metadata for each in request.documents}
    found: Patch = request.metadata or {}
    checked_paths(found, "metadata")
    if request.ids is not None:
        _check_number(len(request.ids))
        return dict.fromkeys(map(str, request.ids), found)
    filter = checked_filter(request.filter)
    if filter is None:
        raise InvalidRequest(
            "the filter keeps every document, so all would be changed; name them by their ids",
            param="filter",
        )
    return filter, found


def _check_number(number: int) -> None:
    if number > MAX_DOCUMENTS:
        raise RequestTooLarge(
            f"the request names {number} documents, at most {MAX_DOCUMENTS} are changed at once; split it"
        )
