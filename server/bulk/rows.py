"""The rows of a unit: a document each, or the reason why it is none.

A row that is wrong costs itself only. A file that cannot be read to its end is an error, because nobody
would notice the rows that are missing behind the damage.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from server.bulk.inputs import Unit
from server.bulk.layout import Layout
from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument, checked
from server.sources.columns import Columns, Roles, roles_of
from server.sources.json_lines import MOST_SHAPES, parsed
from server.sources.tables import check_names
from server.store.records import Document

# Bytes of a line, and characters of a field: as much as a server takes in one request.
MOST = 32 << 20
BATCH_ROWS = 1024
NO_HEADER = Message("it has no first line with the names of its columns")
NOT_UTF8 = Message("not UTF-8")
NO_VALUE = Message("it has a value that cannot be read, such as a time in nanoseconds")
SURROGATE = Message("it has a lone surrogate, which is half a character")
TOO_LONG = Message("a line has more than {most:,} bytes", most=MOST)
# A field of the usual limit, 131,072 characters, would be an error in the middle of a book.
csv.field_size_limit(MOST)


class Row(NamedTuple):
    """A row of a unit, counted from 1: a document, or why it is none.

    A number counts lines of JSON, blank ones too, and else records.
    """

    number: int
    found: Document | Message


# What a reader finds: the number of a row, with its values by column or what is wrong.
Raw = tuple[int, Mapping[str, Any] | Message]


def rows_of(unit: Unit, layout: Layout) -> Iterator[Row]:
    """Yield the rows of a unit; raises BadSettings for a file that cannot be read to its end."""
    try:
        for number, raw in READERS[unit.format](unit, layout):
            yield Row(number, raw if isinstance(raw, Message) else _document(raw, layout))
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise _unreadable(unit, error) from None


def _document(row: Mapping[str, Any], layout: Layout) -> Document | Message:
    try:
        roles = _roles(tuple(row), layout.columns)
        id, title = (row.get(name) if name else None for name in (roles.id, roles.title))
        # A cell of CSV cannot be missing, only empty.
        id = None if id == "" else id
        names = (roles.text, roles.id or "id", roles.title or "title")
        return checked(row.get(roles.text), id, title, layout.metadata(row), names=names)
    except NotADocument as error:
        return error.sentence
    except UnicodeEncodeError:
        return SURROGATE


@lru_cache(MOST_SHAPES)
def _roles(names: tuple[str, ...], asked: Columns) -> Roles:
    return roles_of(names, asked)


def _json(unit: Unit, layout: Layout) -> Iterator[Raw]:
    with _opened(unit) as file:
        for number, line in enumerate(_lines(file, unit.begin, unit.end), 1):
            if isinstance(line, Message):
                yield number, line
                continue
            if number == 1 and not unit.begin:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                yield number, parsed(line.decode())
            except UnicodeDecodeError:
                yield number, NOT_UTF8
            except NotADocument as error:
                yield number, error.sentence


def _csv(unit: Unit, layout: Layout) -> Iterator[Raw]:
    with _opened(unit) as file:
        # Bytes that are no UTF-8 become lone surrogates, which only their own record has.
        reader = csv.reader(_text_lines(unit, file), strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise _unreadable(unit, str(error)) from None
        if not header:
            raise _unreadable(unit, NO_HEADER)
        if not _is_utf8(header):
            raise _unreadable(unit, NOT_UTF8)
        _check_names(unit, header, layout)
        number, line = 0, reader.line_num
        while True:
            number += 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                why = Message("{why}", why=str(error))
                if reader.line_num > line + 1:
                    # A quote that is not closed has taken in other records, and nobody knows how many.
                    raise _unreadable(
                        unit, Message("record {number:,}: {why}", number=number, why=why)
                    ) from None
                yield number, why
            else:
                if record is None:
                    return
                if record:
                    yield number, _record(header, record)
            line = reader.line_num


def _unreadable(unit: Unit, why: object) -> BadSettings:
    return BadSettings("{file} cannot be read: {why}", file=unit.file, why=why)


def _check_names(unit: Unit, names: Sequence[str], layout: Layout) -> None:
    """Raise BadSettings for columns that cannot be told apart, or without one of the texts."""
    try:
        check_names(names)
        _roles(tuple(names), layout.columns)
    except NotADocument as error:
        raise _unreadable(unit, error.sentence) from None


def _record(header: Sequence[str], record: Sequence[str]) -> Mapping[str, str] | Message:
    if len(record) != len(header):
        return Message(
            "it has {found} fields, and the first line names {wanted} columns",
            found=len(record),
            wanted=len(header),
        )
    if not _is_utf8(record):
        return NOT_UTF8
    return dict(zip(header, record, strict=True))


def _is_utf8(texts: Sequence[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_lines(unit: Unit, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(_lines(file, 0, 0)):
        if isinstance(line, Message):
            # The records behind it may be parts of it, so that nothing there is certain.
            raise _unreadable(unit, line)
        yield line.decode("utf-8" if number else "utf-8-sig", "surrogateescape")


def _lines(file: BinaryIO, begin: int, end: int) -> Iterator[bytes | Message]:
    """Yield the lines that begin in bytes [begin, end), a message for one that is too long; end 0: to the end."""
    place = begin
    if begin:
        file.seek(begin - 1)
        # subtle: the line that crosses `begin` belongs to the unit before. Where one ends there, this reads
        # its end only.
        place += _skipped(file) - 1
    while not end or place < end:
        line = file.readline(MOST + 1)
        if not line:
            return
        place += len(line)
        if len(line) > MOST and not line.endswith(b"\n"):
            place += _skipped(file)
            yield TOO_LONG
        else:
            yield line


def _skipped(file: BinaryIO) -> int:
    """Read to the end of a line, however long; return how many bytes."""
    size = 0
    while piece := file.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _opened(unit: Unit) -> BinaryIO:
    if unit.format.endswith(".gz"):
        return io.BufferedReader(gzip.open(unit.file, "rb"))
    return open(unit.file, "rb")


def _parquet(unit: Unit, layout: Layout) -> Iterator[Raw]:
    with pq.ParquetFile(unit.file) as file:
        names = file.schema_arrow.names
        _check_names(unit, names, layout)
        roles = _roles(tuple(names), layout.columns)
        read = {roles.text, roles.title, roles.id, *(each.name for each in layout.kept)}
        wanted = [name for name in names if name in read]
        groups = list(range(unit.begin, unit.end))
        number = 0
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                wrong = next((each for each in values if isinstance(each, Message)), None)
                if wrong is not None:
                    yield number, wrong
                else:
                    yield number, dict(zip(batch.schema.names, values, strict=True))


def _values(column: Any) -> list[Any]:
    """Return the values of a column, a message for each that cannot be read; Arrow does not check them.

    Times in nanoseconds, and days beyond Python's, are no values in Python.
    """
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(each) for each in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, OverflowError):
        return NO_VALUE


READERS: Mapping[str, Callable[[Unit, Layout], Iterator[Raw]]] = {
    "parquet": _parquet,
    "jsonl": _json,
    "jsonl.gz": _json,
    "csv": _csv,
    "csv.gz": _csv,
}
