"""A document as it was given, checked, and the error that names the place of one that is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from server.collections.document_limits import check_documents
from server.errors import BadSettings, CallerError
from server.messages.message import Message, SentenceError
from server.sources.decoding import shown_name
from server.sources.place import FILE
from server.store.records import MAX_ID, Document, is_blank, text_id

KEYS = ("text", "id", "title")
SHOWN = 60  # characters of a value in an error


class NotADocument(SentenceError):
    """Raised for a line that is not a document; `placed` adds the place."""


def checked(
    text: object,
    id: object,
    title: object,
    metadata: object,
    *,
    names: tuple[str, str, str] = KEYS,
    path: str | None = None,
) -> Document:
    """Return the document; raises NotADocument. Without an id it is named after its text.

    names: of the text, the id and the title where it comes from. path: of its file in a folder, which then
    stands before the id and in the metadata.
    """
    if not isinstance(text, str):
        raise wrong(names[0], text, Message("a string"))
    if is_blank(text):
        raise NotADocument('"{key}" is empty', key=names[0])
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str | None):
        raise wrong(names[1], id, Message("a string or an integer"))
    if id is None:
        id = text_id(text)
    if id and path is not None:
        id = f"{path}#{id}"
    if not 1 <= len(id) <= MAX_ID:
        raise NotADocument(
            '"{key}" has {length} characters; 1 to {most} are allowed',
            key=names[1],
            length=len(id),
            most=MAX_ID,
        )
    if not isinstance(title, str | None):
        raise wrong(names[2], title, Message("a string"))
    if not isinstance(metadata, dict):
        raise wrong("metadata", metadata, Message("an object"))
    if path is not None:
        metadata = {FILE: path, **metadata}
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
    raise located(file, number, why)


def located(file: Path | None, number: int | None, why: Message) -> BadSettings:
    """Return the error of a file, or of a line of it."""
    name = shown_name(file)
    if number is None:
        return BadSettings("{name}: {why}", name=name, why=why)
    return BadSettings("{name}, line {line}: {why}", name=name, line=number, why=why)
