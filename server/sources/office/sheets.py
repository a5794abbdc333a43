"""Sheets of tables as documents, a row each: xlsx, xls, xlsb and ods.

What holds for the rows of a csv file holds here, see `server/sources/tables.py`: the first row names the
columns, and types are found by all values of a column. Cells become the texts that they would be in such a
file: a number without spare digits, a date as 2024-01-05. A cell that is merged over several rows is the
value of each of them.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice

import python_calamine as calamine

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument
from server.sources.columns import Columns, Roles, roles_of
from server.sources.office.archive import Archive, check_not_encrypted
from server.sources.office.given import Given
from server.sources.office.section import Section, Unreadable, clean
from server.sources.place import ROW, SHEET
from server.sources.tables import Examination, check_names, check_types
from server.store.records import is_blank

# Rows among which the names of columns are looked for: a title may stand above them.
MOST_ABOVE = 20
MOST_SHEETS = 1_000
# As many as a document may have values of metadata.
MOST_COLUMNS = 4_000
# Cells of a sheet, with blank ones up to the last row and column; what is not there has its place too.
MOST_CELLS = 20_000_000
LAST_SECOND = datetime.max.replace(microsecond=0)
Place = tuple[int, int]  # row and column
Cell = str | float | int | bool | date | time | timedelta | None


def sections(given: Given) -> Iterator[Section]:
    """Yield a section for each row of each sheet that has a column of texts."""
    book = _opened(given.data)
    kinds = (calamine.SheetTypeEnum.WorkSheet,)
    visible = [each.name for each in book.sheets_metadata if _is_shown(each)]
    hidden = [
        each.name for each in book.sheets_metadata if each.typ in kinds and not _is_shown(each)
    ]
    if hidden:
        given.note(Message("hidden sheets left out: {names}", names=tuple(hidden[:20])))
    if len(visible) > MOST_SHEETS:
        raise Unreadable(
            "it has {found:,} sheets, at most {most:,} are read",
            found=len(visible),
            most=MOST_SHEETS,
        )
    yield from _rows_of(book, visible, given)


def _rows_of(
    book: calamine.CalamineWorkbook, names: Sequence[str], given: Given
) -> Iterator[Section]:
    """Yield the rows of all sheets; a sheet without a column of texts is noted, unless none has one."""
    read, without = 0, list[str]()
    first: NotADocument | None = None
    for place, name in enumerate(names):
        sheet = _Sheet(book, name, given)
        if not sheet.height:
            continue
        try:
            sheet.examine()
        except NotADocument as error:
            first = first or error
            without.append(name)
            continue
        read += 1
        for section in sheet.sections(is_only=len(names) == 1):
            yield section.within(place / len(names), 1 / len(names))
    if not read and first is not None:
        raise first
    if without:
        given.note(
            Message("sheets without a column of texts left out: {names}", names=tuple(without[:20]))
        )


def _opened(data: bytes) -> calamine.CalamineWorkbook:
    check_not_encrypted(data, may_be_old=True)
    if data.startswith(b"PK"):
        Archive(data)
    try:
        return calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except calamine.PasswordError:
        raise Unreadable("it is encrypted; save a copy without a password") from None
    except calamine.CalamineError as error:
        raise Unreadable("it is damaged or of another format than its suffix says") from error


def _is_shown(sheet: calamine.SheetMetadata) -> bool:
    return bool(
        sheet.typ == calamine.SheetTypeEnum.WorkSheet
        and sheet.visible == calamine.SheetVisibleEnum.Visible
    )


class _Sheet:
    """One sheet: its columns, and its rows as sections."""

    def __init__(self, book: calamine.CalamineWorkbook, name: str, given: Given) -> None:
        self._name, self._given = name, given
        try:
            self._sheet = book.get_sheet_by_name(name)
        except calamine.CalamineError:
            raise Unreadable("its sheet {name} is damaged", name=name) from None
        self.height = self._sheet.height
        if self.height * self._sheet.width > MOST_CELLS:
            raise Unreadable(
                "its sheet {name} has {rows:,} rows of {columns:,} columns, more than {most:,} cells; delete "
                "what is far from the rest",
                name=name,
                rows=self.height,
                columns=self._sheet.width,
                most=MOST_CELLS,
            )
        top, left = self._sheet.start or (0, 0)
        self._first = 1 + top
        self._merged = _Merged.of(self._sheet.merged_cell_ranges or (), top, left)

    def examine(self) -> None:
        """Find the columns and their types; raises NotADocument where none is the text."""
        above, names, roles = self._columns()
        self._names, self._above = names, above
        options = self._given.source.options
        check_names(names)
        check_types(names, roles, options.types, is_folder=True)
        examined = Examination(names, roles, options.types)
        if examined.is_needed:
            for _, row in self._rows():
                examined.add(row)
        self._table = examined.table(names)
        notes = self._given.source.notes
        if found := examined.found():
            notes.kinds[self._place] = found
        if roles.id is not None and self._table.roles.id is None:
            notes.repeated[self._place] = roles.id
        notes.guess(self._place, self._table.roles.guesses)

    @property
    def _place(self) -> str:
        return f"{self._given.shown} [{self._name}]"

    def _columns(self) -> tuple[int, list[str], Roles]:
        """Return how many rows stand above the names of the columns, the names, and their roles."""
        first: NotADocument | None = None
        merged = self._merged.begin()
        for above, row in enumerate(islice(self._sheet.iter_rows(), MOST_ABOVE)):
            names = [text_of(cell).strip() for cell in row]
            merged.fill(above, names)
            if not any(names):
                continue
            if len(list(filter(None, names))) > MOST_COLUMNS:
                raise Unreadable(
                    "its sheet {name} has more than {most:,} columns; delete some",
                    name=self._name,
                    most=MOST_COLUMNS,
                )
            try:
                return above, names, roles_of(list(filter(None, names)), self._asked)
            except NotADocument as error:
                first = first or error
        raise first or NotADocument("it has no rows")

    @property
    def _asked(self) -> Columns:
        return self._given.source.options.columns

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows under the names that are not blank, with their numbers."""
        merged = self._merged.begin(without=self._own)
        for place, row in islice(enumerate(self._sheet.iter_rows()), self._above + 1, None):
            texts = [text_of(cell) for cell in row]
            is_row = not all(map(is_blank, texts))
            merged.fill(place, texts)
            if is_row:
                yield self._first + place, texts

    @property
    def _own(self) -> int | None:
        """The column that was named as the id: each row has its own."""
        asked = self._asked.id
        return self._names.index(asked) if asked in self._names else None

    def sections(self, *, is_only: bool) -> Iterator[Section]:
        """Yield a section for each row. is_only: no other sheet may have the same ids."""
        given, nameless = self._given, [n for n, name in enumerate(self._names) if not name]
        before = [] if is_only else [self._name.replace("%", "%25").replace("#", "%23")]
        if (path := given.source.row_path_of(given.name)) is not None:
            before.insert(0, path)
        for number, row in self._rows():
            try:
                document = self._table.document(row)
            except NotADocument as error:
                given.source.problems.add(self._error(number, error))
                continue
            if any(row[n].strip() for n in nameless):
                given.source.notes.nameless[self._place] += 1
            place = {SHEET: self._name, ROW: number, **document.metadata}
            share = (number - self._first + 1) / self.height
            id = "#".join([*before, document.id])
            yield Section(document.text, document.title, "", place, share, id)

    def _error(self, number: int, error: NotADocument) -> BadSettings:
        return BadSettings(
            "{name}, sheet {sheet}, row {row}: {why}",
            name=self._given.shown,
            sheet=self._name,
            row=number,
            why=error.sentence,
        )


@dataclass(slots=True)
class _Merged:
    """The cells that are merged over several rows.

    begins: by the row of its first cell, the column of each and its last row, counted from the first cell
    that is used. without: a column that is left as it is. open: by column, the last row of a merged cell
    and its value.
    """

    begins: Mapping[int, Sequence[tuple[int, int]]]
    without: int | None = None
    open: dict[int, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, ranges: Iterable[tuple[Place, Place]], top: int, left: int) -> "_Merged":
        begins: dict[int, list[tuple[int, int]]] = {}
        for (row, column), (last, _) in ranges:
            if last > row:
                begins.setdefault(row - top, []).append((column - left, last - top))
        return cls(begins)

    def begin(self, without: int | None = None) -> "_Merged":
        """Return the same for another reading of the rows."""
        return _Merged(self.begins, without)

    def fill(self, place: int, row: list[str]) -> None:
        """Write the values of merged cells that began above into a row; rows come in order."""
        for column, (last, value) in list(self.open.items()):
            if place > last:
                del self.open[column]
            elif is_blank(row[column]):
                row[column] = value
        for column, last in self.begins.get(place, ()):
            if 0 <= column < len(row) and column != self.without:
                self.open[column] = (last, row[column])


def text_of(cell: Cell) -> str:
    """Return a cell as it would be written in a csv file."""
    if isinstance(cell, str):
        return clean(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float | int):
        return _number(cell)
    if isinstance(cell, datetime):
        moment = _whole(cell)
        at_midnight = moment.hour == moment.minute == moment.second == 0
        return moment.date().isoformat() if at_midnight else moment.isoformat()
    if isinstance(cell, time):
        return f"{_whole(datetime.combine(date.min, cell)):%H:%M:%S}"
    if isinstance(cell, timedelta):
        return _duration(cell)
    return "" if cell is None else str(cell)


def _number(number: float) -> str:
    """Return the 15 digits that a sheet keeps; with all its zeros, if the number has a usual size."""
    digits = f"{number:.15g}"
    return f"{Decimal(digits):f}" if "e" in digits and 1e-9 < abs(number) < 1e21 else digits


def _whole(moment: datetime) -> datetime:
    """Return the nearest second: a sheet keeps 9:30 as a fraction of a day, perhaps as 9:29:59.9999."""
    rounded = moment.replace(microsecond=0)
    if moment.microsecond >= 500_000 and rounded < LAST_SECOND:
        rounded += timedelta(seconds=1)
    return rounded


def _duration(length: timedelta) -> str:
    """Return hours, minutes and seconds, such as 36:00:00, as a sheet shows a time beyond a day."""
    seconds = round(length.total_seconds())
    minutes, second = divmod(abs(seconds), 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}:{second:02}"
