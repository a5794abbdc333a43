"""Follows folders while they change: reads what has changed again, and removes what vanished.

watchfiles reports what changes. Whatever goes wrong, a server that restarts or a disk that is gone, what has
changed is kept and tried again, so nothing is missed for longer than the fault lasts. Once an hour all is
read, in case a change was not reported.
"""

import asyncio
import io
import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from server.cli.commands.opening import Run
from server.cli.indexing.background import in_background
from server.cli.indexing.changes import LONGEST_RETRY_S, Changes
from server.cli.indexing.sync import Synced, remove_touched, remove_vanished
from server.cli.ingest import index_documents
from server.cli.target import Chunks, CollectionTarget
from server.clock import now
from server.errors import BadSettings, ServerError, StartupError
from server.messages.terminal import Terminal
from server.sources.decoding import escaped
from server.sources.following import Seen
from server.sources.problems import Problems
from server.sources.readers import read_documents
from server.sources.source import Source

TICK_S = 0.5
READ_ALL_S = 3_600.0

# Yields the paths that have changed since the last time, none where nothing has; ends never.
Reports = Callable[[Sequence[Path], Run], Generator[Iterable[str], None, None]]


class Find(Protocol):
    """Finds the source of a name again: its files as they are now."""

    def __call__(self, name: str, problems: Problems) -> Source: ...


def check_watchable(names: Sequence[str]) -> None:
    """Raise BadSettings for a file, which editors replace by another one when they save it."""
    for name in names:
        if Path(name).is_file():
            raise BadSettings(
                "--watch follows folders and patterns, and {name} is a file; give its folder, with "
                "--include {file}",
                name=name,
                file=Path(name).name,
            )
    if find_spec("watchfiles") is None:
        raise BadSettings("--watch needs watchfiles: pip install 'inkwell-embeddings[watch]'")


def reported(folders: Sequence[Path], run: Run) -> Generator[Iterable[str], None, None]:
    """Yield what watchfiles reports of some folders, every half second; nothing where there are none."""
    from watchfiles import watch

    while not folders:
        run(asyncio.sleep(TICK_S))
        yield ()
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    tick_ms = round(TICK_S * 1000)
    for changes in watch(
        *map(os.path.abspath, folders),
        watch_filter=None,
        debounce=tick_ms,
        rust_timeout=tick_ms,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        yield [path for _, path in changes]


@dataclass(slots=True)
class Watch:
    """Some sources that are followed, and what has changed in them.

    find: finds the files of a source again. sources: as they were first found, all of them stored.
    """

    target: CollectionTarget
    run: Run
    chunks: Chunks
    terminal: Terminal
    find: Find
    sources: Sequence[Source]
    allow_empty: bool = False
    reports: Reports = reported
    clock: Callable[[], float] = now
    _changes: dict[str, Changes] = field(default_factory=dict)
    _all_at: float = 0.0
    _said: set[str] = field(default_factory=set)
    _said_before: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._changes = {source.name: Changes(source.folder) for source in self.sources}

    def forever(self) -> None:
        """Follow the sources until the process is interrupted."""
        self._all_at = self.clock() + READ_ALL_S
        self.terminal.inform(
            "watching {names}; Ctrl-C ends it", names=tuple(each.name for each in self.sources)
        )
        folders = sorted({each.folder for each in self.sources})
        # What has changed while the sources were stored for the first time was not reported.
        self._all()
        while self._until_moved(folders):
            # A folder is gone, is there again, or is another one of the same name.
            self._all()

    def _until_moved(self, folders: Sequence[Path]) -> bool:
        """Follow until one of the folders is another one than before; False where reports end."""
        places = [_place(folder) for folder in folders]
        there = [folder for folder, place in zip(folders, places, strict=True) if place]
        try:
            with closing(self.reports(there, self.run)) as reports:
                for paths in reports:
                    self._tick(paths)
                    if [_place(folder) for folder in folders] != places:
                        return True
        except FileNotFoundError:
            self.run(asyncio.sleep(TICK_S))
            return True
        return False

    def _all(self) -> None:
        for changes in self._changes.values():
            changes.all(self.clock())

    def _tick(self, paths: Iterable[str]) -> None:
        """Note what has changed, and read what is due."""
        moment, found = self.clock(), list(paths)
        for changes in self._changes.values():
            changes.note(found, moment)
        if moment >= self._all_at:
            self._all_at = moment + READ_ALL_S
            self._all()
        for source in self.sources:
            changes = self._changes[source.name]
            if changes.due(moment):
                self._read(source, changes)

    def _read(self, source: Source, changes: Changes) -> None:
        failing = changes.is_failing
        self._said_before, self._said = self._said, set()
        try:
            if failing:
                self.run(self.target.prepare(self.chunks))
            problems = Problems(True, self._wrong)
            self._follow(self.find(source.name, problems), changes)
        except (ServerError, OSError) as error:
            self._failed(changes, error)
            return
        changes.done()
        if failing:
            self.terminal.inform("{name} is stored again", name=source.name)

    def _failed(self, changes: Changes, error: Exception) -> None:
        """Say what went wrong, once, and try again after a while."""
        if changes.failed(str(error), self.clock()):
            said = error if isinstance(error, StartupError | OSError) else str(error)
            self.terminal.inform(
                "not stored yet, but tried again at least every {seconds:.0f} s: {error}",
                error=said,
                seconds=LONGEST_RETRY_S,
            )

    def _wrong(self, error: BadSettings) -> None:
        """Say what could not be read, but not again what the last reading has said, too."""
        self._said.add(str(error))
        if str(error) not in self._said_before:
            self.terminal.inform("not stored: {error}", error=error)

    # --- reading ----------------------------------------------------------------------------------------

    def _follow(self, source: Source, changes: Changes) -> None:
        """Read what has changed in a source, and remove what vanished from it."""
        if changes.whole or source.shares_rows:
            self._say(source.name, self.run(self._whole(source)))
            return
        for file in source.files:
            if file is not None and changes.touches(source.path_of(file)):
                done = self.run(self._one(source, file))
                self._say(str(file), done)
        removed = self.run(remove_touched(self.target, source, sorted(changes.paths)))
        self._say(source.name, Synced(0, 0, removed))

    async def _whole(self, source: Source) -> Synced:
        seen = Seen()
        added, unchanged = await self._store(source, seen)
        if source.shares_rows:
            await in_background(lambda: self._see_others(source, seen))
        removed = await remove_vanished(self.target, [source], seen, allow_empty=self.allow_empty)
        return Synced(added, unchanged, removed)

    def _see_others(self, source: Source, seen: Seen) -> None:
        """Note the rows of the other sources: one that stands there too is not gone."""
        for each in self.sources:
            if each.name == source.name or not each.shares_rows:
                continue
            try:
                found = self.find(each.name, source.problems)
            except BadSettings:
                # Its own turn says so. Until then nothing is removed here.
                source.problems.files.add((each.name, ""))
                continue
            for document, _ in read_documents(found):
                seen.add(document)

    async def _one(self, source: Source, file: Path) -> Synced:
        """Read one file again; what it no longer has is removed, unless an error hides it."""
        seen, only = Seen(), replace(source, files=[file], n_bytes=0)
        added, unchanged = await self._store(only, seen)
        files = [escaped(source.path_of(file))]
        removed = await remove_vanished(self.target, [only], seen, files=files)
        return Synced(added, unchanged, removed)

    async def _store(self, source: Source, seen: Seen) -> tuple[int, int]:
        quiet = replace(self.terminal, err=io.StringIO())
        done = await index_documents(
            self.target,
            seen.through(read_documents(source)),
            0,
            clock=self.clock,
            terminal=quiet,
            problems=source.problems,
        )
        return done.added, done.unchanged

    def _say(self, name: str, done: Synced) -> None:
        if done.added or done.removed:
            self.terminal.say(
                "{name}: added {added:,}, removed {removed:,}",
                name=escaped(name),
                added=done.added,
                removed=done.removed,
            )
            self.terminal.out.flush()


def _place(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one of the same name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
