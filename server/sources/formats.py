"""Lines of each format as documents.

    txt       a line is a document, stripped
    jsonl     a line is a JSON value: an object with "text" and perhaps "id", "title" and "metadata",
              or a string, which is the text
    csv, tsv  a row is a document, see `tables`
    md        the whole file is a document

A document without an id is named after its text, so reading it twice stores it once. What is not a
document is an error that names the line. Only blank lines, rows and files are skipped.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from server.sources.checked import NotADocument, checked, placed, shown
from server.sources.decoding import check_length, decoded, escaped, lines, shown_name
from server.sources.source import Read, Source
from server.sources.tables import documents_of_table
from server.store.records import Document, text_id

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def documents_of(file: Path | None, source: Source) -> Iterator[Read]:
    """Yield the documents of a file of a source, None for standard input; raises BadSettings."""
    match source.format:
        case "md":
            return _whole(file, source)
        case "csv":
            return documents_of_table(file, source, ",")
        case "tsv":
            return documents_of_table(file, source, "\t")
        case "jsonl":
            return _of_lines(file, source, _of_json)
        case "txt":
            return _of_lines(file, source, _of_text)


def _whole(file: Path | None, source: Source) -> Iterator[Read]:
    """Yield one document, named after its path, or after its text on standard input."""
    text, n_read = _whole_text(file, source)
    if not text.strip():
        return
    with placed(file):
        if file is None:
            document = checked(text, None, _heading(text), {})
        else:
            given = file.relative_to(source.folder).as_posix()
            path = escaped(given)
            title = _heading(text) if file.suffix.lower() == ".md" else None
            document = checked(text, path, title or escaped(file.stem), {"path": path})
            if path != given:
                source.notes.escaped.append(path)
    yield document, n_read


def _whole_text(file: Path | None, source: Source) -> tuple[str, int]:
    """Return the text of a file, and its bytes."""
    parts, length, size = list[str](), 0, 0
    for part, n_read in decoded(file, source.encoding, source.notes):
        parts.append(part)
        length, size = length + len(part), n_read
        check_length(file, length)
    return "".join(parts), size


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


def _of_lines(file: Path | None, source: Source, make: Callable[[str], Document]) -> Iterator[Read]:
    for number, line, n_read in lines(file, source.encoding, source.notes):
        if stripped := line.strip():
            with placed(file, number):
                document = make(stripped)
            source.notes.add_names(shown_name(file), document.metadata)
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
        raise NotADocument("{shown} is neither an object nor a string", shown=shown(given))
    if "id" in given and "_id" in given:
        raise NotADocument('it has both "id" and "_id"')
    id = given.pop("id", given.pop("_id", None))
    text, title = given.pop("text", None), given.pop("title", None)
    metadata = given.pop("metadata", None)
    if metadata is not None and given:
        key = shown(next(iter(given)))
        raise NotADocument('{key} stands beside "metadata"; move it into "metadata"', key=key)
    return checked(text, id, title, given if metadata is None else metadata)
