"""Collections of one run of `evaluate`: the same documents, cut into chunks of several sizes.

They stand in a folder of their own, which is removed at the end; nothing is written to the data folder. Every
size embeds all documents again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from server.cli.commands import opening
from server.cli.ingest import Meter, index_documents
from server.cli.invocation import Invocation
from server.cli.local import Local
from server.cli.target import UNSAID, Chunks, CollectionTarget
from server.clock import now
from server.collections.chunking import default_overlap
from server.messages.message import Message
from server.sources.readers import find_sources, read_documents
from server.store.records import ChunkRules, Document

# Stores the documents in a collection.
Fill = Callable[["Trials", Local], None]


class Trials:
    """Makes the collections, and waits for what they answer. fill: stores the documents in each."""

    def __init__(self, given: Invocation, folder: Path, runner: asyncio.Runner, fill: Fill) -> None:
        self.given, self.run, self._fill = given, runner.run, fill
        self._local = Local(replace(given.config, data=folder / "data"), "trial", runner.get_loop())

    def of(self, tokens: int | None) -> Local:
        """Return a collection of the documents, in chunks of so many tokens.

        tokens: None for the usual number, 0 for whole documents.
        """
        target = self._local.named("usual" if tokens is None else f"tokens-{tokens}")
        self.run(target.prepare(_rules(tokens)))
        self._fill(self, target)
        return target

    def close(self) -> None:
        self.run(self._local.close())


@contextmanager
def trials(given: Invocation) -> Iterator[Trials]:
    """Open the folder of a run. Its collections hold --documents, or else those of the collection."""
    with ExitStack() as stack:
        fill: Fill = _from_files
        if not given.arguments.documents:
            target, run = stack.enter_context(opening.target(given))
            fill = _from_collection(target, run)
        folder = stack.enter_context(TemporaryDirectory(prefix="inkwell-evaluate-"))
        runner = stack.enter_context(asyncio.Runner())
        opened = Trials(given, Path(folder), runner, fill)
        stack.callback(opened.close)
        yield opened


def _rules(tokens: int | None) -> Chunks:
    if tokens is None:
        return UNSAID
    return ChunkRules(tokens, default_overlap(tokens)) if tokens else None


def _from_files(trials: Trials, target: Local) -> None:
    from server.sources.source import Options

    arguments = trials.given.arguments
    sources = find_sources(arguments.documents, Options(encoding=arguments.encoding))
    done = index_documents(
        target,
        read_documents(*sources),
        sum(source.n_bytes for source in sources),
        clock=now,
        terminal=trials.given.terminal,
    )
    trials.run(done)


def _from_collection(target: CollectionTarget, run: opening.Run) -> Fill:
    """Return what copies the documents of a collection, page by page."""

    def fill(trials: Trials, trial: Local) -> None:
        pages, done = target.pages(), 0
        meter = Meter(trials.given.terminal, now)
        total = max(1, run(target.count()))
        # The two collections belong to loops of their own.
        while page := run(_next(pages)):
            trials.run(trial.add(page))
            done += len(page)
            meter.show(Message("{done:,} documents", done=done), done, min(1.0, done / total))
        meter.finish()

    return fill


async def _next(pages: AsyncIterator[list[Document]]) -> list[Document]:
    return await anext(pages, [])
