"""A source of documents: the files to read, and how to read them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args, overload

from server.sources.columns import Columns
from server.sources.decoding import escaped
from server.sources.notes import Notes
from server.sources.office.formats import OFFICE, SUFFIXES, OfficeFormat
from server.sources.patterns import Selection
from server.sources.problems import Problems
from server.sources.values import Types
from server.store.records import Document

TextFormat = Literal["txt", "jsonl", "csv", "tsv", "md"]
Format = TextFormat | OfficeFormat
FORMATS: tuple[str, ...] = (*get_args(TextFormat), *OFFICE)
OF_SUFFIX: Mapping[str, str] = {".ndjson": "jsonl"} | {f".{f}": f for f in FORMATS} | dict(SUFFIXES)
# Formats with columns or keys.
TABLES = ("csv", "tsv", "jsonl", "xlsx")
# Formats whose documents are rows or lines, and not named after their file.
OF_ROWS = ("txt", *TABLES)

Read = tuple[Document, int]  # with the bytes of the file read so far
Reader = Iterator[Read]


@dataclass(frozen=True, slots=True)
class Options:
    """How files are read.

    format: None for the one of each file's suffix. encoding: None to detect it for each file. selection:
    the files to read of a folder. allow_empty: whether a folder or a pattern may have no files.
    """

    format: str | None = None
    encoding: str | None = None
    columns: Columns = field(default_factory=Columns)
    types: Types = field(default_factory=Types)
    selection: Selection = field(default_factory=Selection)
    allow_empty: bool = False

    @property
    def names_columns(self) -> bool:
        """Whether it says something of columns, which only tables have."""
        return self.columns != Columns() or self.types != Types()


class InFolder(Sequence[Path]):
    """Files of a folder by their paths in it, which are kept as texts: there may be very many."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "InFolder": ...

    def __getitem__(self, index: int | slice) -> "Path | InFolder":
        if isinstance(index, slice):
            return InFolder(self._folder, self._names[index])
        return self._folder / self._names[index]


@dataclass(frozen=True, slots=True)
class Source:
    """Files to read, found but not opened yet, all from one name that was given.

    name: as it was given. files: in the order of reading; None is standard input. folder: names of whole
    files are relative to it. n_bytes: of all files together, 0 if unknown. is_folder: every text file is a
    document, and ids of rows begin with their file's path. sync: the name under which documents are
    marked as following this source, None where they are not.
    """

    name: str
    files: Sequence[Path | None]
    folder: Path
    n_bytes: int
    options: Options = field(default_factory=Options)
    is_folder: bool = False
    sync: str | None = None
    notes: Notes = field(default_factory=Notes)
    problems: Problems = field(default_factory=Problems)

    @property
    def encoding(self) -> str | None:
        return self.options.encoding

    def format_of(self, file: Path | None) -> Format:
        """Return the format of one of its files; find_sources has checked that it has one."""
        if self.options.format is not None:
            return cast(Format, self.options.format)
        found = OF_SUFFIX.get(file.suffix.lower(), "txt") if file else "txt"
        return cast(Format, "md" if self.is_folder and found == "txt" else found)

    @property
    def shares_rows(self) -> bool:
        """Whether files may share a row: in a folder its id names the file, elsewhere it may not."""
        return not self.is_folder and any(self.format_of(file) in OF_ROWS for file in self.files)

    def path_of(self, file: Path) -> str:
        """Return the path of a file relative to the folder, as a text with slashes."""
        return file.relative_to(self.folder).as_posix()

    def row_path(self, file: Path | None) -> str | None:
        """Return what stands before the ids of a file's rows; None where they stand alone."""
        return self.row_path_of(escaped(self.path_of(file))) if file else None

    def row_path_of(self, path: str) -> str | None:
        """Return the same for the path of a file."""
        return path if self.is_folder else None
