"""A document as it was given, checked, and the error that names the place of one that is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from server.collections.document_limits import check_documents
from server.errors import BadSettings, CallerError
from server.messages.message import Message, SentenceError
from server.sources.decoding import shown_name
from server.store.records import MAX_ID, Document, text_id

SHOWN = 60  # characters of a value in an error


class NotADocument(SentenceError):
    """Raised for a line that is not a document; `placed` adds the place."""


def checked(text: object, id: object, title: object, metadata: object) -> Document:
    """Return the document; raises NotADocument. Without an id it is named after its text."""
    if not isinstance(text, str):
        raise wrong("text", text, Message("a string"))
    if not text.strip():
        raise NotADocument('"text" is empty')
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str | None):
        raise wrong("id", id, Message("a string or an integer"))
    id = text_id(text) if id is None else id
    if not 1 <= len(id) <= MAX_ID:
        raise NotADocument(
            '"id" has {length} characters; 1 to {most} are allowed', length=len(id), most=MAX_ID
        )
    if not isinstance(title, str | None):
        raise wrong("title", title, Message("a string"))
    if not isinstance(metadata, dict):
        raise wrong("metadata", metadata, Message("an object"))
    "".join((id, text, title or "")).encode()  # refuses lone surrogates
    document = Document(id, text, title or None, metadata)
    try:
        check_documents([document])
    except CallerError as error:
        why = error.message.replace("documents[0].", "")
        raise NotADocument("it cannot be stored: {why}", why=why) from None
    return document


def wrong(key: str, value: object, wanted: Message) -> NotADocument:
    """Return the error for a value of another kind than is wanted."""
    if value is None:
        return NotADocument('"{key}" is missing', key=key)
    return NotADocument(
        '"{key}" is {shown}, which is not {wanted}', key=key, shown=shown(value), wanted=wanted
    )


def shown(value: object) -> str:
    """Return a value as JSON, cut to a length that fits a message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@contextmanager
def placed(file: Path | None, number: int | None = None) -> Iterator[None]:
    """Turn NotADocument into a BadSettings that names file and line."""
    try:
        yield
        return
    except NotADocument as error:
        why = error.sentence
    except UnicodeEncodeError:
        why = Message("it has a lone surrogate, which is half a character")
    name = shown_name(file)
    if number is None:
        raise BadSettings("{name}: {why}", name=name, why=why)
    raise BadSettings("{name}, line {line}: {why}", name=name, line=number, why=why)
