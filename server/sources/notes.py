"""Notes on files: what was assumed or left out while they were read, for the end of a command."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from server.messages.message import Message

Reason = Literal["format", "old", "link", "hidden", "excluded", "empty"]
# Reasons that are said without being asked for. The others are what a user expects.
SAID: tuple[Reason, ...] = ("format", "old", "link", "empty")
# Names that are kept of each reason: there may be very many files.
FIRST = 3
# Sentences about single files.
MOST_OF_FILES = 1_000


def _ignore(reason: Reason, name: str) -> None:
    """Do nothing with a file that is left out."""


@dataclass(slots=True)
class Notes:
    """Collected while files are read. A file that is read twice is counted once.

    encodings: by file, where it was detected and is not UTF-8. guessed: by the columns that were taken for
    a document's keys, the files. kinds: types that were found, by file and column. once: streams whose
    columns could not be examined first. blank: rows without any value, by file. nameless: rows with values
    in columns without a name, by file. repeated: by file, a column that looks like an id and whose values
    are not one for each row. replaced: documents that took the place of another one of the same source, by
    file. escaped: documents named after a path that is not UTF-8. skipped: files that are left out, by
    reason: how many, and the first few names. of_files: sentences about single files, such as pages that
    are scans. each_skipped: called with each of them.
    """

    encodings: dict[str, str] = field(default_factory=dict)
    guessed: dict[tuple[tuple[str, str], ...], list[str]] = field(default_factory=dict)
    kinds: dict[str, Mapping[str, str]] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    blank: dict[str, int] = field(default_factory=dict)
    nameless: Counter[str] = field(default_factory=Counter)
    repeated: dict[str, str] = field(default_factory=dict)
    replaced: Counter[str] = field(default_factory=Counter)
    escaped: list[str] = field(default_factory=list)
    skipped: dict[Reason, "Few"] = field(default_factory=dict)
    of_files: list[Message] = field(default_factory=list)
    each_skipped: Callable[[Reason, str], None] = _ignore

    def add(self, message: Message) -> None:
        """Note a sentence about one file."""
        if len(self.of_files) < MOST_OF_FILES:
            self.of_files.append(message)

    def skip(self, reason: Reason, name: str) -> None:
        """Note a file that is left out."""
        self.skipped.setdefault(reason, Few()).add(name)
        self.each_skipped(reason, name)

    def guess(self, file: str, columns: tuple[tuple[str, str], ...]) -> None:
        """Note which columns of a file were taken for the keys of its documents: (key, column)."""
        files = self.guessed.setdefault(columns, []) if columns else [file]
        if file not in files:
            files.append(file)

    def messages(self) -> Iterator[Message]:
        """Yield a sentence for each kind of note, with the first file that it is about."""
        for encoding in sorted(set(self.encodings.values())):
            files = [name for name, found in self.encodings.items() if found == encoding]
            yield Message(
                "read as {encoding}, which was detected: {files}; if that is wrong, give --encoding",
                encoding=encoding,
                files=_listed(files),
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
        if self.escaped:
            yield Message(
                "file names that are not UTF-8, with escapes in the documents' ids: {files}",
                files=_listed(self.escaped),
            )
        for reason in SAID:
            if few := self.skipped.get(reason):
                yield Message("{why}: {files}", why=WHY[reason], files=few.message())

    def _of_columns(self) -> Iterator[Message]:
        for columns, files in self.guessed.items():
            yield Message(
                "read as {columns}, by their names: {files}; to choose others, give --text-column, "
                "--title-column or --id-column",
                columns=tuple(
                    Message("{role} from {column}", role=role, column=column)
                    for role, column in columns
                ),
                files=_listed(files),
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


@dataclass(slots=True)
class Few:
    """How many names there were, and the first of them."""

    number: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.number += 1
        if len(self.names) < FIRST:
            self.names.append(name)

    def message(self) -> Message:
        """Return the names for a sentence."""
        return _listed(self.names, self.number)


WHY: Mapping[Reason, Message] = {
    "format": Message("files of formats that are not read, left out"),
    "old": Message("files to save first as .docx, .pptx, .xlsx, .epub or .eml, left out"),
    "link": Message("links that lead out of the folder or nowhere, left out"),
    "hidden": Message("hidden and temporary files, left out"),
    "excluded": Message("files that --include and --exclude leave out"),
    "empty": Message("files without any text, left out"),
}


def _listed(names: list[str], number: int | None = None) -> Message:
    number = len(names) if number is None else number
    if number == 1:
        return Message("{first}", first=names[0])
    return Message("{first} and {number:,} more", first=names[0], number=number - 1)
