"""Notes on files: what was assumed or left out while they were read, for the end of a command."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from server.messages.message import Message

# The keys of a document.
OWN = ("id", "title", "text")


@dataclass(slots=True)
class Notes:
    """Collected while files are read. A file that is read twice is counted once.

    encodings: by file, where it was detected and is not UTF-8. numbers: names of columns that are
    stored as numbers, by file. once: streams whose columns could not be examined first. blank: rows
    without any value, by file. nameless: rows with values in columns without a name, by file. similar:
    names of metadata that are almost those of a document's own keys, by file. replaced: documents that
    took the place of another one of the same source, by file. escaped: documents named after a path
    that is not UTF-8. left_out: links that lead out of the folder or nowhere. others: files of a
    folder in other formats.
    """

    encodings: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    blank: dict[str, int] = field(default_factory=dict)
    nameless: Counter[str] = field(default_factory=Counter)
    similar: dict[str, list[str]] = field(default_factory=dict)
    replaced: Counter[str] = field(default_factory=Counter)
    escaped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add_names(self, file: str, names: Iterable[str]) -> None:
        """Note names of metadata that were perhaps meant for a document's own keys, such as "ID"."""
        for name in names:
            if name not in OWN and _plain(name) in OWN:
                found = self.similar.setdefault(file, [])
                if name not in found:
                    found.append(name)

    def messages(self) -> Iterator[Message]:
        """Yield a sentence for each kind of note, with the first file that it is about."""
        for encoding in sorted(set(self.encodings.values())):
            files = [name for name, found in self.encodings.items() if found == encoding]
            yield Message(
                "read as {encoding}, which was detected: {files}; if that is wrong, give --encoding",
                encoding=encoding,
                files=_listed(files),
            )
        for name, columns in self.numbers.items():
            yield Message(
                "{name}: stored as numbers: {columns}; to keep them as texts, give --numbers none",
                name=name,
                columns=columns,
            )
        for name in sorted(self.once):
            yield Message(
                "{name} can be read only once, so all columns are stored as texts; name those that "
                "are numbers with --numbers",
                name=name,
            )
        for name, number in self.blank.items():
            yield Message("{name}: blank rows left out: {number:,}", name=name, number=number)
        for name, number in self.nameless.items():
            yield Message(
                "{name}: columns without a name were left out, with values in {number:,} rows; name them "
                "in the first row",
                name=name,
                number=number,
            )
        for name, found in self.similar.items():
            yield Message(
                "{name}: stored as metadata: {found}; a document's own are written id, title and text",
                name=name,
                found=tuple(found),
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
        if self.left_out:
            yield Message(
                "links that lead out of the folder or nowhere, left out: {files}",
                files=_listed(self.left_out),
            )
        if self.others:
            yield Message(
                "files other than .txt and .md, left out: {files}", files=_listed(self.others)
            )


def _plain(name: str) -> str:
    """Return a name as it looks: without case, width and what is invisible."""
    return unicodedata.normalize("NFKC", name).strip("_ \u200b\ufeff").casefold()


def _listed(names: list[str]) -> Message:
    if len(names) == 1:
        return Message("{first}", first=names[0])
    return Message("{first} and {number:,} more", first=names[0], number=len(names) - 1)
