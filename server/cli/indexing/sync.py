"""Makes a collection follow its sources, and compares the two without changing anything.

What a source no longer has is removed when all of it was read, and never before. A file that cannot be read
keeps its documents, and a source that is missing or empty all of them: its disk may not be mounted.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from server.cli.indexing.background import in_background
from server.cli.ingest import batched
from server.cli.target import CollectionTarget
from server.errors import BadSettings
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.sources.decoding import escaped
from server.sources.following import Seen, file_of, filter_under, mark_of, marked_filter
from server.sources.source import Read, Source
from server.store.records import Document

PAGE_DOCUMENTS = 1_000
IDS_AT_ONCE = 1_000
# Ids that a dry run names of each kind.
FIRST = 5


class Synced(NamedTuple):
    """Counts of documents."""

    added: int
    unchanged: int
    removed: int


async def remove_vanished(
    target: CollectionTarget,
    sources: Sequence[Source],
    seen: Seen,
    *,
    allow_empty: bool = False,
    files: Sequence[str] | None = None,
) -> int:
    """Remove the documents that follow these sources and were not read; return how many.

    Those of files with an error stay: what could not be read may be there.

    files: those that were read, where not the whole source was; then one may be empty. Raises BadSettings
    where a source has become empty, unless that is allowed.
    """
    gone: list[str] = []
    for source in sources:
        name = source.sync or ""
        if files is None and not allow_empty and not seen.number(name):
            raise _empty(source)
        async for documents in _pages(target, marked_filter(name, files)):
            gone += [
                each.id
                for each in documents
                if not seen.has(each.id)
                and mark_of(each) == name
                and not _may_be_there(source, file_of(each) or "")
            ]
    return await _remove(target, gone)


def _may_be_there(source: Source, file: str) -> bool:
    """Return whether a document that was not read may stand where something could not be read.

    Rows of a folder are named after their file. Other rows may stand in several files, which share the
    document.
    """
    problems = source.problems
    return problems.hides(source.name, file) if source.is_folder else bool(problems.files)


async def remove_touched(target: CollectionTarget, source: Source, paths: Sequence[str]) -> int:
    """Remove the documents of paths that are no longer among the files of a source; return how many.

    paths: files and folders, relative to the source.
    """
    name = source.sync or ""
    there = {escaped(source.path_of(file)) for file in source.files if file is not None}
    gone: list[str] = []
    for path in sorted({escaped(path) for path in paths} - there):
        for filter in (marked_filter(name, [path]), filter_under(name, path)):
            async for documents in _pages(target, filter):
                gone += [
                    each.id
                    for each in documents
                    if mark_of(each) == name
                    and (file := file_of(each) or "") not in there
                    and not source.problems.hides(source.name, file)
                ]
    return await _remove(target, gone)


async def _remove(target: CollectionTarget, ids: Sequence[str]) -> int:
    removed = 0
    for first in range(0, len(ids), IDS_AT_ONCE):
        removed += await target.delete(ids[first : first + IDS_AT_ONCE])
    return removed


def _empty(source: Source) -> BadSettings:
    return BadSettings(
        "{name} has no documents, so nothing that follows it was removed; is its disk mounted? To remove "
        "all of them, give --allow-empty",
        name=source.name,
    )


async def _pages(
    target: CollectionTarget, filter: Mapping[str, object] | None
) -> AsyncIterator[Sequence[Document]]:
    after = "0"
    while after:
        page = await target.page(after, PAGE_DOCUMENTS, filter)
        yield page.documents
        after = page.next


# --- a dry run ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Some:
    """A number of documents, and the ids of the first few."""

    number: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.number += 1
        if len(self.first) < FIRST:
            self.first.append(id)

    def drop(self, id: str) -> None:
        self.number -= 1
        if id in self.first:
            self.first.remove(id)


@dataclass(slots=True)
class Plan:
    """What a run would change."""

    added: Some = field(default_factory=Some)
    replaced: Some = field(default_factory=Some)
    removed: Some = field(default_factory=Some)
    unchanged: Some = field(default_factory=Some)

    def of(self, before: int | None, content: int) -> Some:
        """Return the documents whose content changes as from `before`, None for no document."""
        if before is None:
            return self.added
        return self.unchanged if before == content else self.replaced

    def say(self, terminal: Terminal) -> None:
        """Print the counts, each with the first few ids."""
        for what, some in (
            (Message("would add"), self.added),
            (Message("would replace"), self.replaced),
            (Message("would remove"), self.removed),
        ):
            number, ids = some.number, tuple(some.first)
            if not number:
                terminal.say("{what}: {number:,}", what=what, number=number)
            elif number == len(ids):
                terminal.say("{what}: {number:,} ({ids})", what=what, number=number, ids=ids)
            else:
                terminal.say("{what}: {number:,} ({ids} ...)", what=what, number=number, ids=ids)
        terminal.say("unchanged: {number:,}", number=self.unchanged.number)


async def compare(
    target: CollectionTarget | None,
    documents: Iterable[Read],
    sources: Sequence[Source],
    *,
    allow_empty: bool,
) -> Plan:
    """Return what a run would change. target: None where no collection is there yet.

    It reads all stored documents, and keeps hashes of each.
    """
    followed = {source.sync for source in sources if source.sync is not None}
    stored, marked = await _stored(target, followed)
    plan, seen, read = Plan(), Seen(), dict[int, int]()
    batches = batched(seen.through(documents))
    while batch := await in_background(lambda: next(batches, None)):
        for document in batch[0]:
            key, content = hash(document.id), _content(document)
            # Of documents with the same id the last one stays.
            if key in read:
                plan.of(stored.get(key), read[key]).drop(document.id)
            read[key] = content
            plan.of(stored.get(key), content).add(document.id)
    for source in sources:
        if source.sync is not None and not allow_empty and not seen.number(source.sync):
            raise _empty(source)
    for id, of_source, file in marked:
        hidden = any(_may_be_there(source, file) for source in sources if source.sync == of_source)
        if not seen.has(id) and not hidden:
            plan.removed.add(id)
    return plan


async def _stored(
    target: CollectionTarget | None, followed: set[str]
) -> tuple[dict[int, int], list[tuple[str, str, str]]]:
    """Return the contents of all stored documents as hashes, and those that follow a source.

    Of these: the id, the source and the file.
    """
    stored, marked = dict[int, int](), list[tuple[str, str, str]]()
    if target is None or target.name not in await target.names():
        return stored, marked
    async for documents in _pages(target, None):
        for document in documents:
            stored[hash(document.id)] = _content(document)
            mark = mark_of(document)
            if mark in followed and mark is not None:
                marked.append((document.id, mark, file_of(document) or ""))
    return stored, marked


def _content(document: Document) -> int:
    metadata = msgspec.json.encode(document.metadata, order="deterministic")
    return hash((document.text, document.title, metadata))
