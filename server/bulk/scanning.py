"""Reads a unit once, and stores its rows in runs that are sorted by digest.

A run is an external sort's: of some hundred units, those rows can be read that fall into one range of
digests, without the others. The note of a unit is written last. So a unit that has a note has all its runs,
and one that has none is read again, into files of the same names.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from server.bulk.inputs import Unit, state_of
from server.bulk.layout import Layout
from server.bulk.rows import rows_of
from server.bulk.work_file import replacing
from server.errors import BadSettings
from server.messages.message import Message
from server.store.records import Document, titled

# Of a run: what one task holds of its unit at a time.
RUN_ROWS, RUN_CHARACTERS = 1 << 16, 16 << 20
# Rows of a group, which are skipped or read together: the parts of a large corpus need a few of each run.
GROUP_ROWS = 1024
PLACE = [pa.field("file", pa.string()), pa.field("begin", pa.int64()), pa.field("row", pa.int64())]


class Scanned(msgspec.Struct, frozen=True):
    """The note of a unit that has been read.

    lines: rows that its reader counted, also those that are no documents. characters: of all that is kept of
    the documents.
    """

    runs: int
    rows: int
    characters: int
    lines: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Scan:
    """A unit to read. folder: where runs and note go. is_strict: whether a wrong row is an error."""

    unit: Unit
    layout: Layout
    folder: Path
    is_strict: bool = False

    @property
    def name(self) -> str:
        return self.unit.key(repr(self.layout))

    @property
    def note(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def rejects(self) -> Path:
        return self.folder / f"{self.name}.rejects"

    def run(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:05}.parquet"

    def done(self) -> Scanned | None:
        """Return the note of the unit if it was read before."""
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=Scanned)
        except FileNotFoundError:
            return None


def run_schema(layout: Layout) -> Any:
    """Return the columns of a run. key: the first 8 bytes of the digest, by which it is sorted."""
    own = [
        pa.field("key", pa.uint64()),
        pa.field("digest", pa.binary(32)),
        pa.field("id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
    ]
    return pa.schema([*own, *layout.kept_fields, *PLACE])


def digest_of(document: Document) -> bytes:
    """Return the SHA-256 of what the model reads: the text with its title before it."""
    return hashlib.sha256(titled(document.title, document.text).encode()).digest()


def reject_line(file: str, begin: int, row: int, why: Message) -> bytes:
    """Return a line of a file of rejects; row: counted from `begin` until the last step adds what is before."""
    return (
        msgspec.json.encode({"file": file, "begin": begin, "row": row, "why": why.english}) + b"\n"
    )


def scan(asked: Scan) -> Scanned:
    """Read a unit, unless it was read before; raises BadSettings."""
    if (done := asked.done()) is not None:
        return done
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = _Run(asked)
    with replacing(asked.rejects) as rejects:
        for line in found.rejects():
            rejects.write(line)
    if state_of(asked.unit.file) != asked.unit.state:
        # Another unit of the file, or this one, may have seen it as it was before.
        raise BadSettings("{file} changed while it was read; run it again", file=asked.unit.file)
    note = Scanned(found.runs, found.rows, found.characters, found.lines, found.rejected)
    with replacing(asked.note) as file:
        file.write(msgspec.json.encode(note))
    return note


@dataclass(slots=True)
class _Run:
    """Writes the rows of a unit, a run at a time, and counts them."""

    asked: Scan
    runs: int = 0
    rows: int = 0
    characters: int = 0
    lines: int = 0
    rejected: int = 0
    _held: list[tuple[int, Document]] = field(default_factory=list)
    _size: int = 0

    def rejects(self) -> Iterator[bytes]:
        """Write all runs; yield the lines of the rows that are no documents."""
        unit = self.asked.unit
        for number, row in rows_of(unit, self.asked.layout):
            self.lines = number
            if isinstance(row, Message):
                if self.asked.is_strict:
                    raise BadSettings(
                        "{file}, row {row:,}: {why}; leave out --strict to list such rows and go on",
                        file=unit.file,
                        row=number + (unit.base or 0),
                        why=row,
                    )
                self.rejected += 1
                yield reject_line(unit.file, unit.begin, number, row)
                continue
            self._held.append((number, row))
            self._size += _size_of(row)
            if len(self._held) == RUN_ROWS or self._size > RUN_CHARACTERS:
                self._flush()
        self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        table = _table(self.asked, self._held)
        with replacing(self.asked.run(self.runs)) as file:
            pq.write_table(table, file, row_group_size=GROUP_ROWS, compression="zstd")
        self.runs += 1
        self.rows += len(self._held)
        self.characters += self._size
        self._held, self._size = [], 0


def _size_of(document: Document) -> int:
    """Return the characters that are held of a document."""
    shown = (document.title, document.text, *document.metadata.values())
    return sum(len(each) for each in shown if isinstance(each, str))


def _table(asked: Scan, rows: Sequence[tuple[int, Document]]) -> Any:
    digests = [digest_of(document) for _, document in rows]
    documents = [document for _, document in rows]
    columns: dict[str, list[Any]] = {
        "key": [int.from_bytes(each[:8]) for each in digests],
        "digest": digests,
        "id": [each.id for each in documents],
        "title": [each.title for each in documents],
        "text": [each.text for each in documents],
        "file": [asked.unit.file] * len(rows),
        "begin": [asked.unit.begin] * len(rows),
        "row": [number for number, _ in rows],
    }
    for kept in asked.layout.kept:
        columns[kept.name] = [each.metadata.get(kept.name) for each in documents]
    table = pa.table(columns, schema=run_schema(asked.layout))
    return table.sort_by([("key", "ascending"), ("row", "ascending")])
