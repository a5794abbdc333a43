"""POST /files: the body is a file of any format that is read, and its documents are stored."""

from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from server.api.decoding import check_parameters, flag, parameter
from server.api.documents.reply import Stored, stored_form
from server.api.files.reading import Contents, in_terms_of_http, read_file
from server.api.native_errors import NATIVE
from server.api.operation import (
    CollectionCall,
    CollectionOperation,
    accepting_of,
    readable_of,
)
from server.api.replies import Reply, json_body
from server.collections.external.kinds import Writable
from server.collections.writing.given import add_given
from server.collections.writing.outcome import Outcome
from server.collections.writing.several_writes import SeveralWrites
from server.errors import BadSettings, InvalidRequest, shown
from server.sources.columns import Columns
from server.sources.decoding import check_encoding
from server.sources.office.formats import advice
from server.sources.source import OF_SUFFIX, TABLES, Options
from server.sources.values import Types, parse_types
from server.store.records import Document

OPTIONS = (*("name", "dry_run", "encoding", "text_column", "title_column", "id_column", "types"),)
MAX_NAME = 200  # characters; ids of documents begin with it
# Documents of one write, and their characters together.
BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 4_000_000
# Of a reply.
SHOWN_IDS, SHOWN_ERRORS, SHOWN_DOCUMENTS = 1_000, 100, 10
SHOWN_CHARACTERS = 10_000  # of the text of a document in a preview, and of a note or an error


class FileError(msgspec.Struct):
    """A row that is not a document. line: its line or row; sheet: of a workbook."""

    message: str
    line: int | None = None
    sheet: str | None = None


class FileStored(msgspec.Struct):
    """The result of storing a file.

    documents: how many it has. stored: how many were new or changed; unchanged: the others. ids: of the
    first 1,000. rows_left_out: how many rows are not documents; errors: the first 100 of them. notes: on
    what was assumed or left out. preview: with `dry_run`, the first 10 documents, of each
    text the first 10,000 characters; nothing is stored then. queued: true where some are safe on this server
    and wait for the vector database; absent otherwise.
    """

    file: str
    format: str
    documents: int
    stored: int
    unchanged: int
    ids: list[str]
    rows_left_out: int
    errors: list[FileError]
    notes: list[str]
    preview: list[Stored] | msgspec.UnsetType = msgspec.UNSET
    queued: bool | msgspec.UnsetType = msgspec.UNSET


def inside() -> list[CollectionOperation]:
    """Return the operation on the files of one collection."""
    return [
        CollectionOperation(
            *(NATIVE, "POST", "/files", upload, "Store a file's documents", "write"),
            response=(FileStored,),
            query=OPTIONS,
            is_file=True,
        )
    ]


async def upload(call: CollectionCall) -> Reply:
    """Store the documents of the file that is the body; its suffix in `name` says the format.

    A file that cannot be read is refused, and nothing of it is stored. Rows that are not documents are
    listed, and the others are stored.
    """
    given = QueryParams(call.scope["query_string"])
    check_parameters(given, OPTIONS)
    name, format = _name(given)
    options = _options(given, format)
    is_dry = flag(given, "dry_run", default=False)
    # Before the file is read: a collection that is not there is refused.
    readable_of(call)
    found = await read_file(call.body, name, format, options)
    result = partial(_result, name, format, found)
    if is_dry:
        return Reply(json_body(result(0, preview=found.documents[:SHOWN_DOCUMENTS])))
    stored = Outcome(0)
    if found.documents:
        stored = await _store(await accepting_of(call), found.documents)
    reply = result(stored.number)
    if stored.queued:
        reply.queued = True
    return Reply(json_body(reply))


async def _store(collection: Writable, documents: list[Document]) -> Outcome:
    """Store documents in writes of a bounded size."""
    stored, batch, size = Outcome(0), list[Document](), 0
    writes = SeveralWrites(collection)
    for document in documents:
        if batch and (
            len(batch) == BATCH_DOCUMENTS or size + len(document.text) > BATCH_CHARACTERS
        ):
            stored = stored.and_then(await add_given(collection, batch, {}, None))
            writes.check()
            batch, size = [], 0
        batch.append(document)
        size += len(document.text)
    stored = stored.and_then(await add_given(collection, batch, {}, None))
    writes.check()
    return stored


def _result(
    name: str,
    format: str,
    found: Contents,
    stored: int,
    preview: list[Document] | None = None,
) -> FileStored:
    number = len(found.documents)
    is_dry = preview is not None
    return FileStored(
        name,
        format,
        number,
        stored,
        0 if is_dry else number - stored,
        [document.id for document in found.documents[:SHOWN_IDS]],
        found.n_wrong,
        [_error(error) for error in found.wrong[:SHOWN_ERRORS]],
        [note[:SHOWN_CHARACTERS] for note in found.notes],
        msgspec.UNSET if preview is None else [_previewed(each) for each in preview],
    )


def _previewed(document: Document) -> Stored:
    """Return a document with the beginning of its text."""
    found = stored_form(document)
    found.text = found.text[:SHOWN_CHARACTERS]
    return found


def _error(error: BadSettings) -> FileError:
    fields: Mapping[str, Any] = error.sentence.fields
    line = fields.get("line", fields.get("row"))
    return FileError(in_terms_of_http(error.english)[:SHOWN_CHARACTERS], line, fields.get("sheet"))


def _name(given: QueryParams) -> tuple[str, str]:
    """Return the name of the file and its format; raises InvalidRequest."""
    name = given.get("name", "").replace("\\", "/").rsplit("/", 1)[-1].strip()
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            f"{parameter('name')} is {shown(name)}; give the file's name with its suffix, of 1 to"
            f" {MAX_NAME} characters: ?name=report.pdf",
            param="name",
        )
    suffix = PurePosixPath(name).suffix.lower()
    format = OF_SUFFIX.get(suffix)
    if format is None:
        what = advice(suffix)
        raise InvalidRequest(
            f"{shown(name)}: {what.english}"
            if what is not None
            else f"{parameter('name')} is {shown(name)}, and its suffix is not that of a format that is"
            f" read: {', '.join(sorted(OF_SUFFIX))}",
            param="name",
        )
    return name, format


def _options(given: QueryParams, format: str) -> Options:
    """Return how the file is read; raises InvalidRequest."""
    encoding = given.get("encoding") or None
    try:
        check_encoding(encoding)
    except BadSettings as error:
        raise InvalidRequest(
            error.english.replace("--encoding", "encoding"), param="encoding"
        ) from None
    columns = Columns(
        *(given.get(key) or None for key in ("text_column", "title_column", "id_column"))
    )
    types = parse_types(given["types"]) if given.get("types") else Types()
    if types is None:
        raise InvalidRequest(
            f"{parameter('types')} is {shown(given['types'])}, not like year=number,code=text",
            param="types",
        )
    options = Options(format, encoding, columns, types)
    if options.names_columns and format not in TABLES:
        raise InvalidRequest(
            f"columns and types are for {', '.join(TABLES)}, and the file is read as {format}",
            param="name",
        )
    return options
