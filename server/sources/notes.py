"""Notes on files: what was assumed or left out while they were read, for the end of a command."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from server.messages.message import Message

Reason = Literal["format", "old", "link", "hidden", "excluded", "empty"]
# Reasons that are said without being asked for. The others are what a user expects.
SAID: tuple[Reason, ...] = ("format", "old", "link", "empty")
# Names that are kept of each reason: there may be very many files.
FIRST = 3
# Files that have a sentence of their own, of each kind of note.
MOST_FILES = 20


def _ignore(reason: Reason, name: str) -> None:
    """Do nothing with a file that is left out."""


T = TypeVar("T")


@dataclass(slots=True)
class Few:
    """How many names there were, and the first of them; a name twice in a row counts once."""

    number: int = 0
    names: list[str] = field(default_factory=list)
    _last: str | None = None

    def add(self, name: str) -> None:
        if name == self._last:
            return
        self.number, self._last = self.number + 1, name
        if len(self.names) < FIRST:
            self.names.append(name)

    def message(self) -> Message:
        """Return the first name, and how many more there are."""
        if self.number == 1:
            return Message("{first}", first=self.names[0])
        return Message("{first} and {number:,} more", first=self.names[0], number=self.number - 1)


class PerFile(dict[str, T]):
    """What was noted of the first files, by file; files come one after the other.

    beyond: how many files there were besides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beyond = 0
        self._last: str | None = None

    def __setitem__(self, file: str, value: T) -> None:
        if file in self or len(self) < MOST_FILES:
            super().__setitem__(file, value)
        elif file != self._last:
            self.beyond += 1
            self._last = file


class Counts(PerFile[int]):
    """A number for each file, at first 0."""

    def __missing__(self, file: str) -> int:
        return 0


@dataclass(slots=True)
class Notes:
    """Collected while files are read. A file that is read twice is counted once.

    encodings: by encodings that were detected and are not UTF-8, the files. guessed: by the columns that
    were taken for a document's keys, the files. kinds: types that were found, by file and column. once: streams whose
    columns could not be examined first. blank: rows without any value, by file. nameless: rows with values
    in columns without a name, by file. repeated: by file, a column that looks like an id and whose values
    are not one for each row. replaced: documents that took the place of another one of the same source, by
    file. noise: characters that are no text, by file. escaped: documents named after a path that is not UTF-8.
    skipped: files that are left out, by reason: how many, and the first few names. of_files: sentences about
    single files, such as pages that are scans. each_skipped: called with each of them.
    """

    encodings: dict[str, Few] = field(default_factory=dict)
    guessed: dict[tuple[tuple[str, str], ...], Few] = field(default_factory=dict)
    kinds: PerFile[Mapping[str, str]] = field(default_factory=PerFile)
    once: set[str] = field(default_factory=set)
    blank: Counts = field(default_factory=Counts)
    nameless: Counts = field(default_factory=Counts)
    repeated: PerFile[str] = field(default_factory=PerFile)
    replaced: Counts = field(default_factory=Counts)
    noise: Counts = field(default_factory=Counts)
    escaped: Few = field(default_factory=Few)
    skipped: dict[Reason, Few] = field(default_factory=dict)
    of_files: list[Message] = field(default_factory=list)
    n_of_files: int = 0
    each_skipped: Callable[[Reason, str], None] = _ignore

    def add(self, message: Message) -> None:
        """Note a sentence about one file."""
        self.n_of_files += 1
        if len(self.of_files) < MOST_FILES:
            self.of_files.append(message)

    def found(self, encoding: str, file: str) -> None:
        """Note the encoding of a file that was detected."""
        self.encodings.setdefault(encoding, Few()).add(file)

    def skip(self, reason: Reason, name: str) -> None:
        """Note a file that is left out."""
        self.skipped.setdefault(reason, Few()).add(name)
        self.each_skipped(reason, name)

    def guess(self, file: str, columns: tuple[tuple[str, str], ...]) -> None:
        """Note which columns of a file were taken for the keys of its documents: (key, column)."""
        if columns and len(self.guessed) < MOST_FILES:
            self.guessed.setdefault(columns, Few()).add(file)

    def messages(self) -> Iterator[Message]:
        """Yield a sentence for each kind of note, with the first file that it is about."""
        for encoding, files in sorted(self.encodings.items()):
            yield Message(
                "read as {encoding}, which was detected: {files}; if that is wrong, give --encoding",
                encoding=encoding,
                files=files.message(),
            )
        yield from self._of_columns()
        yield from self.of_files
        for name, number in self.blank.items():
            yield Message("{name}: blank rows left out: {number:,}", name=name, number=number)
        for name, number in self.nameless.items():
            yield Message(
                "{name}: columns without a name were left out, with values in {number:,} rows; name them "
                "in the first row",
                name=name,
                number=number,
            )
        for name, number in self.replaced.items():
            yield Message(
                "{name}: documents that replaced another one of the same id, which is lost: {number:,}; a "
                "document without an id is named after its text",
                name=name,
                number=number,
            )
        for name, number in self.noise.items():
            yield Message(
                "{name}: {number:,} characters are no text, such as images in base64; they are stored, and left "
                "out where documents are split into chunks",
                name=name,
                number=number,
            )
        if self.escaped.number:
            yield Message(
                "file names that are not UTF-8, with escapes in the documents' ids: {files}",
                files=self.escaped.message(),
            )
        if beyond := self._beyond():
            yield Message("notes on {number:,} more files are left out here", number=beyond)
        for reason in SAID:
            if few := self.skipped.get(reason):
                yield Message("{why}: {files}", why=WHY[reason], files=few.message())

    def _beyond(self) -> int:
        """Return how many files have notes that are not shown."""
        kinds = (
            self.kinds,
            self.blank,
            self.nameless,
            self.repeated,
            self.replaced,
            self.noise,
        )
        return max(*(each.beyond for each in kinds), self.n_of_files - len(self.of_files))

    def _of_columns(self) -> Iterator[Message]:
        for columns, files in self.guessed.items():
            yield Message(
                "read as {columns}, by their names: {files}; to choose others, give --text-column, "
                "--title-column or --id-column",
                columns=tuple(
                    Message("{role} from {column}", role=role, column=column)
                    for role, column in columns
                ),
                files=files.message(),
            )
        for name, column in self.repeated.items():
            yield Message(
                "{name}: column {column} looks like an id, but its values are not one for each row, so it "
                "is stored as metadata; --id-column {column} takes it all the same",
                name=name,
                column=column,
            )
        for name, kinds in self.kinds.items():
            yield Message(
                "{name}: types that were found: {columns}; to choose others, give --types",
                name=name,
                columns=tuple(f"{column}={kind}" for column, kind in kinds.items()),
            )
        for name in sorted(self.once):
            yield Message(
                "{name} can be read only once, so all columns are stored as texts; name the types of "
                "others with --types",
                name=name,
            )


WHY: Mapping[Reason, Message] = {
    "format": Message("files of formats that are not read, left out"),
    "old": Message("files to save first as .docx, .pptx, .xlsx, .epub or .eml, left out"),
    "link": Message("links that lead out of the folder or nowhere, left out"),
    "hidden": Message("hidden and temporary files, left out"),
    "excluded": Message("files that --include and --exclude leave out"),
    "empty": Message("files without any text, left out"),
}
