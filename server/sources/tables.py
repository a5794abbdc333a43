"""Rows of a csv or tsv file as documents, and which of their columns are numbers.

The first row names the columns: text, perhaps id and title; the others are metadata. A row without
any value, as Excel leaves at the end, is skipped, and so is Excel's first line "sep=,". Columns that
have no name, as pandas writes one, are left out; the notes count the rows with values in them.

A table says nothing of types, and a filter finds a number only where a number is stored. So a column
whose every value is a plain number is stored as numbers, where that loses nothing. It stays texts if
a value has a leading zero (007), a sign +, an exponent or more than ten digits before the point
(13800138000), more than 15 digits at all, or a last zero that others lack (1.9 and 1.10 are versions,
12.50 and 9.00 are prices). The file is read once for the types and once for the documents: no type
depends on the order of the rows. A blank cell of such a column is left out.
"""

import csv
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import SHOWN, NotADocument, checked, placed, wrong
from server.sources.decoding import MOST_CHARACTERS, lines, shown_name
from server.sources.source import Read, Source

TEXTS = ("text", "id", "title")
PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,9})(?:\.([0-9]+))?")
# What float64 keeps exactly, whatever the number.
MOST_DIGITS = 15
# What --numbers accepts: also 007, +5 and 1e-3. 18 digits are within 64 bits.
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")

Row = tuple[int, list[str], int]  # the number of its first line; its fields; bytes read so far


def documents_of_table(file: Path | None, source: Source, delimiter: str) -> Iterator[Read]:
    """Yield a document for each row."""
    rows = _rows(file, source, delimiter)
    number, names, _ = next(rows, (1, [], 0))
    names = [name.strip() for name in names]
    with placed(file, number):
        _check_names(names, source.numbers or (), delimiter)
    source.notes.add_names(shown_name(file), names)
    numbers = _numbers(file, source, delimiter, names)
    nameless = [place for place, name in enumerate(names) if not name]
    for number, row, n_read in rows:
        with placed(file, number):
            if len(row) != len(names):
                raise NotADocument(
                    "{found} fields, but the first row has {expected}",
                    found=len(row),
                    expected=len(names),
                )
            fields = dict(zip(names, row, strict=True))
            fields.pop("", None)
            if any(row[place].strip() for place in nameless):
                source.notes.nameless[shown_name(file)] += 1
            text, id, title = (fields.pop(name, None) for name in TEXTS)
            document = checked(text, id, title, _typed(fields, numbers))
        yield document, n_read


def _rows(file: Path | None, source: Source, delimiter: str) -> Iterator[Row]:
    """Yield rows that are not blank; line ends within quotes are kept."""
    n_read = blank = 0
    marks_delimiter = ["sep=", ""]

    def ended() -> Iterable[str]:
        nonlocal n_read
        for _, line, n in lines(file, source.encoding, source.notes):
            n_read = n
            yield f"{line}\n"

    # This holds for the whole process; nothing else in it reads CSV. A quote that is never closed would
    # take in the rest of the file.
    csv.field_size_limit(MOST_CHARACTERS)
    reader = csv.reader(ended(), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        with placed(file, number):
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise NotADocument(
                    "wrong quotes: {error}; a quote within quotes is written twice", error=error
                ) from None
        if row is None:
            return
        if number == 1 and row == marks_delimiter:
            continue
        if any(map(str.strip, row)):
            yield number, row, n_read
        elif len(row) > 1:
            blank += 1
            source.notes.blank[shown_name(file)] = blank


def _check_names(names: Sequence[str], numbers: Sequence[str], delimiter: str) -> None:
    if "text" not in names:
        found = ", ".join(filter(None, names))[:SHOWN]
        if len(names) == 1 and re.search("[;,\t|]", found):
            raise NotADocument(
                "the first row is one column, {found}; columns are separated by {delimiter}",
                found=found,
                delimiter=Message("commas")
                if delimiter == ","
                else Message("tabs, with --format tsv"),
            )
        raise NotADocument('the first row has no column "text", only: {found}', found=found)
    for name in names:
        if name and names.count(name) > 1:
            raise NotADocument('two columns are named "{name}"', name=name)
    for name in numbers:
        if name in TEXTS:
            raise NotADocument('--numbers names "{name}", which is always a text', name=name)
        if name not in names:
            raise NotADocument(
                '--numbers names "{name}", and the first row has no such column', name=name
            )


# --- numbers ------------------------------------------------------------------------------------------


class _Column:
    """What the values of a column have in common, as far as they were read."""

    __slots__ = ("_decimals", "_plain", "_zero_last")

    def __init__(self) -> None:
        self._plain, self._zero_last = True, False
        self._decimals = set[int]()

    def add(self, value: str) -> None:
        if not self._plain or not value:
            return
        found = PLAIN.fullmatch(value)
        n_digits = sum(map(str.isdigit, value))
        if found is None or n_digits > MOST_DIGITS or value[0] == "-" and not float(value):
            self._plain = False
            return
        decimals = found[1] or ""
        self._decimals.add(len(decimals))
        self._zero_last = self._zero_last or decimals.endswith("0")

    @property
    def is_number(self) -> bool:
        """Whether numbers tell its values apart as its texts do."""
        same = len(self._decimals) == 1
        return self._plain and (same or bool(self._decimals) and not self._zero_last)


def _numbers(
    file: Path | None, source: Source, delimiter: str, names: Sequence[str]
) -> Collection[str]:
    """Return the columns that are stored as numbers."""
    if source.numbers is not None:
        return source.numbers
    columns = {name: _Column() for name in names if name and name not in TEXTS}
    if not columns:
        return ()
    if file is None or not file.is_file():
        source.notes.once.add(shown_name(file))
        return ()
    # A row that cannot be read ends this. It ends the reading of documents at the same place.
    with suppress(BadSettings):
        for _, row, _ in islice(_rows(file, source, delimiter), 1, None):
            if len(row) != len(names):
                break
            for name, value in zip(names, row, strict=True):
                if name in columns:
                    columns[name].add(value.strip())
    found = tuple(name for name, column in columns.items() if column.is_number)
    if found:
        source.notes.numbers[shown_name(file)] = found
    return found


def _typed(fields: dict[str, str], numbers: Collection[str]) -> dict[str, str | int | float]:
    """Return metadata: columns that are numbers as numbers, without their blank cells."""
    return {
        name: _number(name, value.strip()) if name in numbers else value
        for name, value in fields.items()
        if name not in numbers or value.strip()
    }


def _number(name: str, value: str) -> int | float:
    if WHOLE.fullmatch(value):
        return int(value)
    if DECIMAL.fullmatch(value) and math.isfinite(number := float(value)):
        return number
    raise wrong(name, value, Message("a number"))
