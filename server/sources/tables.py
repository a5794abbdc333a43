"""Rows of a csv or tsv file as documents.

The first row names the columns: `columns` finds text, title and id among them, and the others are metadata
in the types that `values` finds. A row without any value, as Excel leaves at the end, is skipped, and so is
Excel's first line "sep=,". Programs that export numbers as texts write a tab after them, or ="007": neither is
part of a value. Columns that have no name, as pandas writes one, are left out; the notes count
the rows with values in them.

The file is read once for the types and once for the documents: no type depends on the order of the rows.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.checked import NotADocument, checked, located, placed
from server.sources.columns import Roles, listed, roles_of
from server.sources.decoding import MOST_CHARACTERS, can_be_read_twice, lines, shown_name
from server.sources.problems import Problems
from server.sources.source import Read, Source
from server.sources.values import Column, Kind, Types, typed
from server.store.records import Document, is_blank

AS_TEXT = re.compile(r'="([^"]*)"')
Row = tuple[int, list[str], int]  # the number of its first line; its fields; bytes read so far


@dataclass(frozen=True, slots=True)
class Table:
    """How the rows of a table become documents.

    kinds: types of columns that are stored in one other than text.
    """

    names: Sequence[str]
    roles: Roles
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def document(self, row: Sequence[str], path: str | None = None) -> Document:
        """Return the document of a row; raises NotADocument. For path see `checked`."""
        if len(row) != len(self.names):
            raise NotADocument(
                "{found} fields, but the first row has {expected}",
                found=len(row),
                expected=len(self.names),
            )
        fields, roles = dict(zip(self.names, row, strict=True)), self.roles
        fields.pop("", None)
        text = fields.pop(roles.text)
        title = fields.pop(roles.title) if roles.title is not None else None
        id = value_of(fields.pop(roles.id)) if roles.id is not None else None
        others = ((name, value_of(cell)) for name, cell in fields.items())
        return checked(
            text,
            id,
            title,
            typed(others, self.kinds),
            names=(roles.text, roles.id or "id", roles.title or "title"),
            path=path,
        )


def value_of(cell: str) -> str:
    """Return a cell without the blanks around it and without what makes Excel read it as a text."""
    value = cell.strip()
    found = AS_TEXT.fullmatch(value)
    return found[1] if found is not None else value


def documents_of_table(file: Path | None, source: Source, delimiter: str) -> Iterator[Read]:
    """Yield a document for each row."""
    rows = _rows(file, source, delimiter, source.problems)
    number, names, _ = next(rows, (1, [], 0))
    names = [name.strip() for name in names]
    with placed(file, number):
        check_names(names, delimiter)
        roles = roles_of([name for name in names if name], source.options.columns)
        check_types(names, roles, source.options.types, is_folder=source.is_folder)
    table = _examined(file, source, delimiter, names, roles)
    source.notes.guess(shown_name(file), table.roles.guesses)
    nameless = [place for place, name in enumerate(names) if not name]
    path = source.row_path(file)
    for number, row, n_read in rows:
        try:
            with placed(file, number):
                document = table.document(row, path)
        except BadSettings as error:
            source.problems.add(error)
            continue
        if any(row[place].strip() for place in nameless):
            source.notes.nameless[shown_name(file)] += 1
        yield document, n_read


def _rows(file: Path | None, source: Source, delimiter: str, problems: Problems) -> Iterator[Row]:
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
    has_names = False
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            wrong_row = located(file, number, _quotes(error))
            if not has_names:
                raise wrong_row from None
            problems.add(wrong_row)
            continue
        if row is None:
            return
        if number == 1 and row == marks_delimiter:
            continue
        if not all(map(is_blank, row)):
            has_names = True
            yield number, row, n_read
        elif len(row) > 1:
            blank += 1
            source.notes.blank[shown_name(file)] = blank


def _quotes(error: csv.Error) -> Message:
    return Message("wrong quotes: {error}; a quote within quotes is written twice", error=error)


def check_names(names: Sequence[str], delimiter: str = "") -> None:
    """Refuse names that cannot be told apart; delimiter: of a text file, empty for a sheet."""
    if delimiter and len(names) == 1 and re.search("[;,\t|]", names[0]):
        raise NotADocument(
            "the first row is one column, {found}; columns are separated by {delimiter}",
            found=listed(names),
            delimiter=Message("commas") if delimiter == "," else Message("tabs, with --format tsv"),
        )
    seen = set[str]()
    for name in filter(None, names):
        if name in seen:
            raise NotADocument('two columns are named "{name}"', name=name)
        seen.add(name)


# --- types --------------------------------------------------------------------------------------------


def check_types(names: Sequence[str], roles: Roles, types: Types, *, is_folder: bool) -> None:
    """Refuse types of columns that are not there, or are no metadata.

    is_folder: other files of the folder may have the columns that this one lacks.
    """
    for name, kind in types.named.items():
        if name in roles and kind != "text":
            raise NotADocument(
                '--types makes "{name}" a {kind}, and it is the text, title or id, which are always '
                "texts",
                name=name,
                kind=kind,
            )
        if name not in names and not is_folder:
            raise NotADocument(
                "--types names {name}, and there is no such column, only: {columns}",
                name=name,
                columns=listed(names),
            )


class Examination:
    """What the rows of a table show, row by row: types of columns, and whether a guessed id is one."""

    def __init__(self, names: Sequence[str], roles: Roles, types: Types) -> None:
        self._roles = roles
        self._asked = {
            name: kind
            for name in names
            if name and name not in roles and (kind := types.of(name)) is not None
        }
        places = {name: place for place, name in enumerate(names)}
        self._guessed_id = roles.id if "id" in roles.guessed else None
        self._columns = {
            name: (places[name], Column())
            for name in names
            if name and (name not in roles or name == self._guessed_id) and name not in self._asked
        }
        self._id = None if self._guessed_id is None else places[self._guessed_id]
        self._ids = set[int]()
        self.id_repeats = False

    @property
    def is_needed(self) -> bool:
        return bool(self._columns) or self._id is not None

    def add(self, row: Sequence[str]) -> None:
        """Examine a row of as many fields as there are columns."""
        for place, column in self._columns.values():
            column.add(row[place])
        if self._id is not None and not self.id_repeats:
            value = value_of(row[self._id])
            self.id_repeats = not value or hash(value) in self._ids
            self._ids.add(hash(value))

    def found(self) -> dict[str, Kind]:
        """Return the types that were found, without texts."""
        kinds = {name: column.kind for name, (_, column) in self._columns.items()}
        if not self.id_repeats and self._guessed_id is not None:
            del kinds[self._guessed_id]
        return {name: kind for name, kind in kinds.items() if kind != "text"}

    def table(self, names: Sequence[str], *, sure: bool = True) -> "Table":
        """Return how the rows become documents. sure: every row was examined."""
        found = self.found() if sure else {}
        keeps_id = sure and not self.id_repeats
        roles = self._roles if self._id is None or keeps_id else self._roles.without_id()
        asked = {name: kind for name, kind in self._asked.items() if kind != "text"}
        return Table(names, roles, found | asked)


def _examined(
    file: Path | None, source: Source, delimiter: str, names: Sequence[str], roles: Roles
) -> Table:
    """Return the table with the types of its columns, which the file is read for once."""
    name, notes = shown_name(file), source.notes
    examined = Examination(names, roles, source.options.types)
    if not examined.is_needed:
        return examined.table(names)
    if not can_be_read_twice(file):
        notes.once.add(name)
        table = examined.table(names, sure=False)
    else:
        # What ends this ends the reading of documents at the same place.
        with suppress(BadSettings):
            quiet = Problems(source.problems.keep_going)
            for _, row, _ in islice(_rows(file, source, delimiter, quiet), 1, None):
                if len(row) == len(names):
                    examined.add(row)
                elif not quiet.keep_going:
                    break
        table = examined.table(names)
        if found := examined.found():
            notes.kinds[name] = found
    if table.roles.id != roles.id and roles.id is not None:
        notes.repeated[name] = roles.id
    return table
