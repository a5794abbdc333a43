"""Lines of each format as documents.

    txt       a line is a document, stripped
    jsonl     a line is a JSON value: an object with "text" and perhaps "id", "title" and "metadata",
              or a string, which is the text; `columns` finds the keys of other names
    csv, tsv  a row is a document, see `tables`
    md        the whole file is a document
    others    office files, see `office`

A document without an id is named after its text, so reading it twice stores it once. In a folder the path
of its file stands before the id of a row: two tables may count from 1. What is not a document is an error
that names the line. Only blank lines, rows and files are skipped.
"""

from collections.abc import Iterator
from pathlib import Path

from server.errors import BadSettings
from server.sources.checked import checked, placed
from server.sources.decoding import check_length, decoded, escaped, lines, shown_name
from server.sources.isolated.read import read_office
from server.sources.json_lines import documents_of_json
from server.sources.place import FILE
from server.sources.source import Read, Source
from server.sources.tables import documents_of_table
from server.store.records import is_blank


def documents_of(file: Path | None, source: Source) -> Iterator[Read]:
    """Yield the documents of a file of a source, None for standard input; raises BadSettings."""
    match source.format_of(file):
        case "md":
            return _whole(file, source)
        case "csv":
            return documents_of_table(file, source, ",")
        case "tsv":
            return documents_of_table(file, source, "\t")
        case "jsonl":
            return documents_of_json(file, source)
        case "txt":
            return _of_lines(file, source)
        case _:
            return read_office(file, source)


def _whole(file: Path | None, source: Source) -> Iterator[Read]:
    """Yield one document, named after its path, or after its text on standard input."""
    text, n_read = _whole_text(file, source)
    if is_blank(text):
        source.notes.skip("empty", shown_name(file))
        return
    with placed(file):
        if file is None:
            document = checked(text, None, _heading(text), {})
        else:
            given = source.path_of(file)
            path = escaped(given)
            title = _heading(text) if file.suffix.lower() == ".md" else None
            document = checked(text, path, title or escaped(file.stem), {FILE: path})
            if path != given:
                source.notes.escaped.add(path)
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


def _of_lines(file: Path | None, source: Source) -> Iterator[Read]:
    for number, line, n_read in lines(file, source.encoding, source.notes):
        if is_blank(line):
            # Lines of invisible characters look like no line at all; those that are empty are usual.
            if line.strip():
                source.notes.blank[shown_name(file)] += 1
        else:
            try:
                with placed(file, number):
                    document = checked(line.strip(), None, None, {}, path=source.row_path(file))
            except BadSettings as error:
                source.problems.add(error)
                continue
            yield document, n_read
