"""Documents that follow a source: how they are marked, and which of them the source no longer has.

A document that `index --sync` stores has a mark in its metadata: the name of its source, and its file. Only
documents with the mark of a source are ever removed for it, so documents of any other origin stay. A mark
travels with the document into exports, backups and other servers.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from server.errors import BadSettings
from server.sources.decoding import escaped
from server.sources.place import SYNC
from server.sources.source import Read, Source
from server.store.records import Document

# Of a name that was given: it is shown, and part of every document.
MOST_NAME = 128


def following(sources: Sequence[Source], name: str | None) -> list[Source]:
    """Return sources whose documents are marked as following them; raises BadSettings.

    name: of the source, in the place of one that is made of this machine's name and the path.
    """
    if any(file is None for source in sources for file in source.files[:1]):
        raise BadSettings(
            "standard input is no source that documents can follow; name files or folders"
        )
    if name is not None and len(sources) > 1:
        raise BadSettings(
            "--sync-name {name} is for one source, and there are {number}",
            name=name,
            number=len(sources),
        )
    if name is not None and not (name.strip() and name.isprintable() and len(name) <= MOST_NAME):
        raise BadSettings(
            "--sync-name {name!r} is not 1 to {most} printable characters",
            name=name,
            most=MOST_NAME,
        )
    return [replace(source, sync=name or _name_of(source.name)) for source in sources]


def _name_of(given: str) -> str:
    """Return a name for a source: the same for the same path on the same machine, however it is written.

    Of two machines with the same path, neither may remove what the other stored.
    """
    path = os.path.abspath(given)
    place = f"{os.uname().nodename}\0{path}".encode("utf-8", "surrogateescape")
    return f"{escaped(os.path.basename(path))[:64]}-{hashlib.sha256(place).hexdigest()[:12]}"


@dataclass(slots=True)
class Seen:
    """The documents that were read, as hashes of their ids: 8 bytes and a place in a set for each."""

    _ids: set[int] = field(default_factory=set)
    _of_source: dict[str, int] = field(default_factory=dict)

    def through(self, documents: Iterable[Read]) -> Iterator[Read]:
        """Yield the documents, and remember them."""
        for document, n_read in documents:
            self.add(document)
            yield document, n_read

    def add(self, document: Document) -> None:
        self._ids.add(hash(document.id))
        mark = mark_of(document)
        if mark is not None:
            self._of_source[mark] = self._of_source.get(mark, 0) + 1

    def number(self, source: str) -> int:
        """Return how many documents of a source were read."""
        return self._of_source.get(source, 0)

    def has(self, id: str) -> bool:
        """Return whether a document of this id was read."""
        return hash(id) in self._ids


def mark_of(document: Document) -> str | None:
    """Return the name of the source that a document follows, None for other documents."""
    return _mark(document, "source")


def file_of(document: Document) -> str | None:
    """Return the file of the source that a document follows, None for other documents."""
    return _mark(document, "file")


def _mark(document: Document, key: str) -> str | None:
    mark = document.metadata.get(SYNC)
    found = mark.get(key) if isinstance(mark, dict) else None
    return found if isinstance(found, str) else None


def marked_filter(source: str, files: Sequence[str] | None = None) -> dict[str, object]:
    """Return the filter of the documents of a source, or of some of its files."""
    of_source: dict[str, object] = {f"{SYNC}.source": source}
    return of_source if files is None else of_source | {f"{SYNC}.file": {"$in": list(files)}}


def filter_under(source: str, folder: str) -> dict[str, object]:
    """Return the filter of the documents of a source whose files are in a folder of it."""
    # "0" is the character after "/".
    return {f"{SYNC}.source": source, f"{SYNC}.file": {"$gte": f"{folder}/", "$lt": f"{folder}0"}}


def marked(document: Document, source: Source, file: Path | None) -> Document:
    """Return a document with the mark of the source that it follows, if the source has one."""
    if source.sync is None or file is None:
        return document
    mark = {"source": source.sync, "file": escaped(source.path_of(file))}
    return replace(document, metadata={**document.metadata, SYNC: mark})
