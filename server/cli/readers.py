"""Files, folders and standard input as documents, one after the other; no file is held in memory
whole unless it is one document.

    txt       a line a document, stripped
    jsonl     a JSON value a line: an object with "text" and perhaps "id", "title" and "metadata", or
              a string, the text alone
    csv, tsv  a row a document; the first row names the columns: text, perhaps id and title; the
              others are metadata
    md        the whole file is a document; so is each .txt and .md file of a folder

A document without an id is named after its text, so that reading it twice stores it once. What is
not a document is an error that names the line. Only blank lines and blank files are passed over.
"""

import codecs
import csv
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast, get_args

import msgspec

from server.errors import BadSettings
from server.messages.message import Message
from server.store.records import MAX_ID, Document, text_id

STDIN = "-"
Format = Literal["txt", "jsonl", "csv", "tsv", "md"]
FORMATS: tuple[str, ...] = get_args(Format)
OF_SUFFIX: Mapping[str, str] = {"": "txt", ".ndjson": "jsonl"} | {f".{f}": f for f in FORMATS}
IN_FOLDERS = {".txt", ".md"}
READ_BYTES = 1 << 16
SHOWN = 60  # characters of a value in an error
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Line = tuple[int, str, int]  # its number, from 1; without its end; the bytes read so far
Row = tuple[int, list[str], int]  # the number of its first line; its fields; the bytes read so far
Read = tuple[Document, int]  # with the bytes read so far


@dataclass(frozen=True, slots=True)
class Source:
    """What will be read, found but not opened yet.

    files: in the order of reading; one None is standard input. folder: what names of whole files
    are relative to. n_bytes: of all files together, 0 where that is not known.
    """

    format: Format
    encoding: str
    files: tuple[Path | None, ...]
    folder: Path
    n_bytes: int


class NotADocument(Exception):
    """Why a line is none; the place is added by the caller."""

    def __init__(self, template: str, **fields: object) -> None:
        self.sentence = Message(template, **fields)
        super().__init__(self.sentence.english)


def find_source(name: str, *, format: str | None = None, encoding: str = "utf-8") -> Source:
    """A file, a folder, or "-", which is standard input.

    format: one of FORMATS, or None: what the suffix says, txt where there is none. A folder takes
    no format: its .txt and .md files are read at any depth, in the order of their paths, without
    hidden ones and symbolic links. Raises BadSettings for what is missing, empty or unknown.
    """
    _decoder(encoding)
    if name == STDIN:
        return Source(_format(name, "", format), encoding, (None,), Path(), 0)
    path = Path(name)
    with _reading(name):
        status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        n_bytes = status.st_size
        return Source(_format(name, path.suffix, format), encoding, (path,), path.parent, n_bytes)
    if format is not None:
        raise BadSettings(
            "{name} is a folder, of which .txt and .md files are read, each as one document; "
            "--format {format} is for a single file",
            name=name,
            format=format,
        )
    with _reading(name):
        files = _files_of(path)
        n_bytes = sum(file.stat().st_size for file in files)
    if not files:
        raise BadSettings(
            "{name} has no .txt or .md files in it; files of other formats are read one at a time",
            name=name,
        )
    return Source("md", encoding, tuple(files), path, n_bytes)


def read_documents(source: Source) -> Iterator[Read]:
    """Documents in order, each with the number of bytes read so far, of all files.

    Raises BadSettings at what cannot be read or decoded or is no document; what came before it has
    been handed out by then.
    """
    n_before = 0
    for file in source.files:
        n_read = 0
        for document, n_read in _documents(source, file):
            yield document, n_before + n_read
        n_before += n_read


# --- what there is ------------------------------------------------------------------------------------


def _format(name: str, suffix: str, given: str | None) -> Format:
    found = OF_SUFFIX.get(suffix.lower()) if given is None else given
    if found in FORMATS:
        return cast(Format, found)
    wrong = (
        Message("--format {given} is unknown", given=given)
        if given is not None
        else Message("{name}: the suffix {suffix} is no known format", name=name, suffix=suffix)
    )
    raise BadSettings("{wrong}; give --format, one of {formats}", wrong=wrong, formats=FORMATS)


def _files_of(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in IN_FOLDERS and path.is_file() and not path.is_symlink():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = _name(error.filename or name)
        raise BadSettings(
            "{where} cannot be read: {strerror}", where=where, strerror=error.strerror
        ) from None


# --- bytes to lines -----------------------------------------------------------------------------------


def _decoded(file: Path | None, encoding: str) -> Iterator[tuple[str, int]]:
    """Text as it is read, each line end a line feed, with the number of bytes read so far."""
    name = _name(file)
    decoder = io.IncrementalNewlineDecoder(_decoder(encoding), translate=True)
    n_read, data = 0, b"-"
    with _opened(file) as opened:
        while data:
            with _reading(name):
                data = opened.read(READ_BYTES)
            n_read += len(data)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # Bytes kept from the last read come before these, so the place counts from the end.
                offset = n_read - len(error.object) + error.start
                raise _undecodable(name, encoding, offset) from None
            except UnicodeError:  # UTF-16 or UTF-32 without its mark
                raise _undecodable(name, encoding, 0) from None
            yield text, n_read


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    with _reading(_name(file)):
        opened = file.open("rb")
    with opened:
        yield opened


def _lines(file: Path | None, encoding: str) -> Iterator[Line]:
    number, n_read = 1, 0
    parts: list[str] = []
    for text, n_read in _decoded(file, encoding):
        first, *others = text.split("\n")
        parts.append(first)
        for other in others:
            yield number, "".join(parts), n_read
            number, parts = number + 1, [other]
    if last := "".join(parts):
        yield number, last, n_read


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        "".encode(encoding)  # refuses codecs that are no text encodings
        name = codecs.lookup(encoding).name
    except LookupError:
        raise BadSettings(
            "--encoding {encoding} is unknown; examples: utf-8, gb18030, utf-16",
            encoding=encoding,
        ) from None
    # Windows editors put a byte order mark before UTF-8; it is no part of the first text.
    return codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()


def _undecodable(name: str, encoding: str, offset: int) -> BadSettings:
    return BadSettings(
        "{name} is not {encoding}: wrong bytes at offset {offset}; say how it is encoded, for "
        "example --encoding gb18030",
        name=name,
        encoding=encoding,
        offset=offset,
    )


def _name(file: Path | str | None) -> str:
    """As errors call it; one that is not UTF-8 could not be printed as it is."""
    return "<stdin>" if file is None else str(file).encode(errors="backslashreplace").decode()


# --- lines to documents -------------------------------------------------------------------------------


def _documents(source: Source, file: Path | None) -> Iterator[Read]:
    match source.format:
        case "md":
            return _whole(source, file)
        case "csv" | "tsv":
            rows = _rows(file, source.encoding, "," if source.format == "csv" else "\t")
            return _of_rows(file, rows)
        case "jsonl":
            return _of_lines(file, source.encoding, _of_json)
        case "txt":
            return _of_lines(file, source.encoding, _of_text)


def _whole(source: Source, file: Path | None) -> Iterator[Read]:
    """One document, named after its path; standard input has none and is named after its text."""
    read = list(_decoded(file, source.encoding))
    text, n_read = "".join(part for part, _ in read), read[-1][1]
    if not text.strip():
        return
    with _placed(file):
        if file is None:
            document = _document(text, None, _heading(text), {})
        else:
            path = file.relative_to(source.folder).as_posix()
            title = _heading(text) if file.suffix.lower() == ".md" else None
            document = _document(text, path, title or file.stem, {"path": path})
    yield document, n_read


def _heading(text: str) -> str | None:
    """The first of the first level in Markdown, outside of blocks of code."""
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
    for number, line, n_read in _lines(file, encoding):
        if stripped := line.strip():
            with _placed(file, number):
                document = make(stripped)
            yield document, n_read


def _of_text(line: str) -> Document:
    return Document(text_id(line), line)


def _of_json(line: str) -> Document:
    """Keys that no document has become its metadata, unless it has "metadata" too.

    "_id" is another spelling of "id"; null is as good as nothing.
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
        raise NotADocument(
            "{shown} is neither an object nor a string",
            shown=_shown(given),
        )
    if "id" in given and "_id" in given:
        raise NotADocument('both "id" and "_id" are there')
    id = given.pop("id", given.pop("_id", None))
    text, title = given.pop("text", None), given.pop("title", None)
    metadata = given.pop("metadata", None)
    if metadata is not None and given:
        key = _shown(next(iter(given)))
        raise NotADocument(
            '{key} stands beside "metadata"; put it into "metadata"',
            key=key,
        )
    return _document(text, id, title, given if metadata is None else metadata)


def _of_rows(file: Path | None, rows: Iterator[Row]) -> Iterator[Read]:
    """Columns without a name are left out, such as the row numbers that pandas writes."""
    number, names, _ = next(rows, (1, [], 0))
    names = [name.strip() for name in names]
    with _placed(file, number):
        _check_names(names)
    for number, row, n_read in rows:
        with _placed(file, number):
            if len(row) != len(names):
                raise NotADocument(
                    "{n_row} fields, where the first row has {n_names}",
                    n_row=len(row),
                    n_names=len(names),
                )
            fields = dict(zip(names, row, strict=True))
            fields.pop("", None)
            text, id, title = (fields.pop(name, None) for name in ("text", "id", "title"))
            document = _document(text, id, title, fields)
        yield document, n_read


def _rows(file: Path | None, encoding: str, delimiter: str) -> Iterator[Row]:
    """Rows that are not blank; line ends within quotes are kept."""
    n_read = 0

    def ended() -> Iterable[str]:
        nonlocal n_read
        for _, line, n in _lines(file, encoding):
            n_read = n
            yield f"{line}\n"

    # Of the whole process; nothing else in it reads CSV.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(ended(), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        with _placed(file, number):
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise NotADocument(
                    "wrong quotes: {error}; a quote within quotes is written twice",
                    error=error,
                ) from None
        if row is None:
            return
        if len(row) > 1 or "".join(row).strip():
            yield number, row, n_read


def _check_names(names: Sequence[str]) -> None:
    if "text" not in names:
        found = ", ".join(filter(None, names))[:SHOWN]
        raise NotADocument(
            'the first row names no column "text", only: {found}',
            found=found,
        )
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
            '"id" has {n_id} characters; 1 to {MAX_ID} are possible',
            n_id=len(id),
            MAX_ID=MAX_ID,
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
        '"{key}" is {shown}, which is not {wanted}',
        key=key,
        shown=_shown(value),
        wanted=wanted,
    )


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@contextmanager
def _placed(file: Path | None, number: int | None = None) -> Iterator[None]:
    """What is no document is said with its file and line."""
    try:
        yield
        return
    except NotADocument as error:
        why = error.sentence
    except UnicodeEncodeError:
        why = Message("a lone surrogate, which is half a character and not text")
    name = _name(file)
    if number is None:
        raise BadSettings("{name}: {why}", name=name, why=why)
    raise BadSettings("{name}, line {line}: {why}", name=name, line=number, why=why)
