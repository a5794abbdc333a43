"""Lines of each format as documents.

    txt       a line is a document, stripped
    jsonl     a line is a JSON value: an object with "text" and perhaps "id", "title" and "metadata",
              or a string, which is the text
    csv, tsv  a row is a document; the first row names the columns: text, perhaps id and title; other
              columns are metadata
    md        the whole file is a document

A document without an id is named after its text, so reading it twice stores it once. What is not a
document is an error that names the line. Only blank lines and blank files are skipped.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import msgspec

from server.cli.decoding import decoded, lines, shown_name
from server.errors import BadSettings
from server.messages.message import Message, SentenceError
from server.store.records import MAX_ID, Document, text_id

Format = Literal["txt", "jsonl", "csv", "tsv", "md"]
FORMATS: tuple[str, ...] = get_args(Format)
SHOWN = 60  # characters of a value in an error
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Row = tuple[int, list[str], int]  # the number of its first line; its fields; bytes read so far
Read = tuple[Document, int]  # with the bytes of the file read so far


class NotADocument(SentenceError):
    """Raised for a line that is not a document; the caller adds the place."""


def documents_of(file: Path | None, format: Format, encoding: str, folder: Path) -> Iterator[Read]:
    """Yield the documents of a file, None for standard input; raises BadSettings.

    folder: names of whole files are relative to it.
    """
    match format:
        case "md":
            return _whole(file, encoding, folder)
        case "csv" | "tsv":
            return _of_rows(file, _rows(file, encoding, "," if format == "csv" else "\t"))
        case "jsonl":
            return _of_lines(file, encoding, _of_json)
        case "txt":
            return _of_lines(file, encoding, _of_text)


def _whole(file: Path | None, encoding: str, folder: Path) -> Iterator[Read]:
    """Yield one document, named after its path, or after its text on standard input."""
    read = list(decoded(file, encoding))
    text, n_read = "".join(part for part, _ in read), read[-1][1]
    if not text.strip():
        return
    with _placed(file):
        if file is None:
            document = _document(text, None, _heading(text), {})
        else:
            path = file.relative_to(folder).as_posix()
            title = _heading(text) if file.suffix.lower() == ".md" else None
            document = _document(text, path, title or file.stem, {"path": path})
    yield document, n_read


def _heading(text: str) -> str | None:
    """Return the first Markdown heading of level one, outside of code blocks."""
    fenced = False
    for line in text.split("\n"):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif line.startswith(("# ", "#\t")) and not fenced:
            heading = line[1:].strip()
            # "# Title #" is called Title, "# C#" C#.
            bare = heading.rstrip("#")
            if heading := bare.rstrip() if bare[-1:].isspace() else heading:
                return heading
    return None


def _of_lines(file: Path | None, encoding: str, make: Callable[[str], Document]) -> Iterator[Read]:
    for number, line, n_read in lines(file, encoding):
        if stripped := line.strip():
            with _placed(file, number):
                document = make(stripped)
            yield document, n_read


def _of_text(line: str) -> Document:
    return Document(text_id(line), line)


def _of_json(line: str) -> Document:
    """Parse a JSON value. Keys that a document does not have become metadata, unless it has any.

    "_id" is another spelling of "id"; null means that the key is missing.
    """
    try:
        given = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        if SURROGATE.search(line):
            raise NotADocument(
                "not JSON: {error} (a lone surrogate is half a character)", error=error
            ) from None
        raise NotADocument("not JSON: {error}", error=error) from None
    if isinstance(given, str):
        given = {"text": given}
    if not isinstance(given, dict):
        raise NotADocument("{shown} is neither an object nor a string", shown=_shown(given))
    if "id" in given and "_id" in given:
        raise NotADocument('it has both "id" and "_id"')
    id = given.pop("id", given.pop("_id", None))
    text, title = given.pop("text", None), given.pop("title", None)
    metadata = given.pop("metadata", None)
    if metadata is not None and given:
        key = _shown(next(iter(given)))
        raise NotADocument('{key} stands beside "metadata"; move it into "metadata"', key=key)
    return _document(text, id, title, given if metadata is None else metadata)


def _of_rows(file: Path | None, rows: Iterator[Row]) -> Iterator[Read]:
    """Yield a document for each row, without columns that have no name, as pandas writes them."""
    number, names, _ = next(rows, (1, [], 0))
    names = [name.strip() for name in names]
    with _placed(file, number):
        _check_names(names)
    for number, row, n_read in rows:
        with _placed(file, number):
            if len(row) != len(names):
                raise NotADocument(
                    "{found} fields, but the first row has {expected}",
                    found=len(row),
                    expected=len(names),
                )
            fields = dict(zip(names, row, strict=True))
            fields.pop("", None)
            text, id, title = (fields.pop(name, None) for name in ("text", "id", "title"))
            document = _document(text, id, title, fields)
        yield document, n_read


def _rows(file: Path | None, encoding: str, delimiter: str) -> Iterator[Row]:
    """Yield rows that are not blank; line ends within quotes are kept."""
    n_read = 0

    def ended() -> Iterable[str]:
        nonlocal n_read
        for _, line, n in lines(file, encoding):
            n_read = n
            yield f"{line}\n"

    # This holds for the whole process; nothing else in it reads CSV.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(ended(), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        with _placed(file, number):
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise NotADocument(
                    "wrong quotes: {error}; a quote within quotes is written twice", error=error
                ) from None
        if row is None:
            return
        if len(row) > 1 or "".join(row).strip():
            yield number, row, n_read


def _check_names(names: Sequence[str]) -> None:
    if "text" not in names:
        found = ", ".join(filter(None, names))[:SHOWN]
        raise NotADocument('the first row has no column "text", only: {found}', found=found)
    for name in names:
        if name and names.count(name) > 1:
            raise NotADocument('two columns are named "{name}"', name=name)


def _document(text: object, id: object, title: object, metadata: object) -> Document:
    if not isinstance(text, str):
        raise _wrong("text", text, Message("a string"))
    if not text.strip():
        raise NotADocument('"text" is empty')
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str | None):
        raise _wrong("id", id, Message("a string or an integer"))
    id = text_id(text) if id is None else id
    if not 1 <= len(id) <= MAX_ID:
        raise NotADocument(
            '"id" has {length} characters; 1 to {most} are allowed', length=len(id), most=MAX_ID
        )
    if not isinstance(title, str | None):
        raise _wrong("title", title, Message("a string"))
    if not isinstance(metadata, dict):
        raise _wrong("metadata", metadata, Message("an object"))
    "".join((id, text, title or "")).encode()  # refuses lone surrogates
    return Document(id, text, title or None, metadata)


def _wrong(key: str, value: object, wanted: Message) -> NotADocument:
    if value is None:
        return NotADocument('"{key}" is missing', key=key)
    return NotADocument(
        '"{key}" is {shown}, which is not {wanted}', key=key, shown=_shown(value), wanted=wanted
    )


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@contextmanager
def _placed(file: Path | None, number: int | None = None) -> Iterator[None]:
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
