"""Lines of JSON whose documents bring their vectors: in the line, or in the row of a .npy file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from server.api.documents.vectors import Written, parts_in, row_of
from server.cli.exchange.npy_file import NpyRows
from server.errors import BadSettings, CallerError
from server.sources.checked import NotADocument, checked, placed
from server.sources.decoding import can_be_read_twice, lines, shown_name
from server.sources.json_lines import Keys, document_of, parsed
from server.sources.notes import Notes
from server.sources.source import Source
from server.store.reading.parts import Parts
from server.store.records import Document, Info

KEYS = ("vector", "vectors", "parts")
# Keys of a line whose document has no text.
TEXTLESS = {"id", "text", "title", "metadata"}


class _Own(msgspec.Struct):
    """What a line says of its vectors."""

    vector: Written | None = None
    vectors: list[Written] | None = None
    parts: list[tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class WithParts(Document):
    """A document and the vectors that it brings, None where it brings none."""

    parts: Parts | None = None

    @property
    def plain(self) -> Document:
        return Document(self.id, self.text, self.title, self.metadata)


class _Line(NamedTuple):
    number: int
    document: Document
    own: _Own
    n_read: int


class VectorLines:
    """The documents of a file with their vectors; rows: of the lines that are not blank, in order."""

    def __init__(self, file: Path | None, source: Source, rows: NpyRows | None) -> None:
        self._file, self._source, self._rows = file, source, rows
        self._is_read_twice = can_be_read_twice(file)
        if rows is not None and self._is_read_twice:
            self._check_number(sum(1 for _ in self._raw_lines(Notes())), rows)

    @property
    def dimension(self) -> int | None:
        """Return how many numbers the vectors have; None where no line of a file that is read twice has one."""
        if self._rows is not None:
            return int(self._rows.dimension)
        if not self._is_read_twice:
            return None
        for number, line, _ in self._raw_lines(Notes()):
            with _placed(self._file, number):
                own = _own(parsed(line))
                row = own.vector or next(iter(own.vectors or ()), None)
                if row is not None:
                    return int(row_of(row, "the document").size)
        return None

    def documents(self, info: Info) -> Iterator[tuple[WithParts, int]]:
        """Yield each document, with the bytes read so far; raises BadSettings. info: of the collection."""
        place = 0
        for place, line in enumerate(self._lines(self._source.notes), 1):
            with _placed(self._file, line.number):
                parts = self._parts(line, place - 1, info)
            document = line.document
            fields = (document.id, document.text, document.title, document.metadata)
            yield WithParts(*fields, parts), line.n_read
        if self._rows is not None:
            self._check_number(place, self._rows)

    def _parts(self, line: _Line, place: int, info: Info) -> Parts | None:
        own, text = line.own, line.document.text
        if self._rows is None:
            return parts_in(text, own.vector, own.vectors, own.parts, info, "the document")
        if place >= self._rows.number:
            self._check_number(place + 1, self._rows)
        row = self._rows.row(place).tolist()
        return parts_in(text, row, own.vectors, own.parts, info, "the document")

    def _lines(self, notes: Notes) -> Iterator[_Line]:
        keys = Keys(self._file, self._source)
        for number, line, n_read in self._raw_lines(notes):
            with placed(self._file, number):
                given = parsed(line)
                own = _own(given)
                document = _document(given, keys)
            yield _Line(number, document, own, n_read)

    def _raw_lines(self, notes: Notes) -> Iterator[tuple[int, str, int]]:
        for number, line, n_read in lines(self._file, self._source.encoding, notes):
            if stripped := line.strip():
                yield number, stripped, n_read

    def _check_number(self, found: int, rows: NpyRows) -> None:
        if found != rows.number:
            raise BadSettings(
                "{name} has {lines} documents, and the .npy file has {number} rows: they do not belong "
                "together",
                name=shown_name(self._file),
                lines=found,
                number=rows.number,
            )


@contextmanager
def _placed(file: Path | None, number: int) -> Iterator[None]:
    """Turn the refusal of a line's vectors into an error that names file and line."""
    with placed(file, number):
        try:
            yield
        except CallerError as error:
            raise NotADocument("{why}", why=error.message) from None


def _own(given: dict[str, Any]) -> _Own:
    """Take what a line says of its vectors out of it."""
    try:
        return msgspec.convert({key: given.pop(key) for key in KEYS if key in given}, _Own)
    except msgspec.ValidationError as error:
        raise NotADocument("{why}", why=str(error)) from None


def _document(given: dict[str, Any], keys: Keys) -> Document:
    """Return the document of a line; one with an id needs no text, where its collection needs none."""
    if given.get("id") is not None and not given.get("text") and given.keys() <= TEXTLESS:
        found = given["id"], given.get("title"), given.get("metadata") or {}
        return replace(checked("-", *found), text="")
    return document_of(given, keys)
