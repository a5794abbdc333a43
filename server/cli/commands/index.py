"""The command `index`: files as documents of a collection."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings, NoDataFolder

if TYPE_CHECKING:
    from server.cli.report import Report
    from server.cli.target import CollectionTarget
    from server.sources.source import Options, Source

# Some rows or files could not be read, and the rest is stored.
SOME_WRONG = 3


def index(given: Invocation) -> int:
    """Add the documents of files, folders, patterns or standard input."""
    from server.sources.columns import Columns
    from server.sources.patterns import Selection
    from server.sources.source import Options

    arguments = given.arguments
    options = Options(
        format=arguments.format,
        encoding=arguments.encoding,
        columns=Columns(arguments.text_column, arguments.title_column, arguments.id_column),
        types=arguments.types,
        selection=Selection(tuple(arguments.include), tuple(arguments.exclude)),
        allow_empty=arguments.allow_empty,
    )
    _check_sync(given)
    return index_sources(given, arguments.sources, options)


def index_sources(given: Invocation, names: Sequence[str], options: "Options") -> int:
    """Store the documents of some sources; return the exit status."""
    from server.cli.report import Report

    arguments = given.arguments
    chunks = opening.chunks(given)
    with Report(
        given.terminal,
        keep_going=arguments.keep_going,
        verbose=arguments.verbose,
        file=arguments.report,
    ) as report:
        sources = find(given, names, options, report)
        if arguments.dry_run:
            _dry_run(given, sources)
        else:
            with opening.target(given, create=True) as (target, run):
                run(target.prepare(chunks))
                run(store(given, target, sources))
    return SOME_WRONG if report.problems.number else 0


def find(
    given: Invocation, names: Sequence[str], options: "Options", report: "Report"
) -> "list[Source]":
    """Return the sources; with --sync, those that documents follow."""
    from server.sources.following import following
    from server.sources.readers import find_sources

    sources = find_sources(names, options, report.notes, report.problems)
    if not given.arguments.sync:
        return sources
    return following(sources, given.arguments.sync_name)


async def store(given: Invocation, target: "CollectionTarget", sources: "Sequence[Source]") -> None:
    """Store the documents of sources, remove what vanished from those that are followed, and say so."""
    from server.cli.ingest import index_documents
    from server.cli.sync import remove_vanished
    from server.sources.following import Seen
    from server.sources.readers import read_documents

    terminal, seen, problems = given.terminal, Seen(), sources[0].problems
    documents = read_documents(*sources)
    if given.arguments.sync:
        documents = seen.through(documents)
    done = await index_documents(
        target,
        documents,
        sum(source.n_bytes for source in sources),
        clock=now,
        terminal=terminal,
        problems=problems,
    )
    terminal.say(done.summary(problems.number))
    if not given.arguments.sync:
        return
    if problems.number:
        terminal.inform(
            "nothing was removed, because not everything could be read: what is missing may be there"
        )
        return
    removed = await remove_vanished(target, sources, seen, allow_empty=given.arguments.allow_empty)
    terminal.say("removed {number:,}", number=removed)


def _dry_run(given: Invocation, sources: "Sequence[Source]") -> None:
    """Print what would change, and write nothing."""
    from server.cli.sync import compare
    from server.sources.readers import read_documents

    allow_empty, documents = given.arguments.allow_empty, read_documents(*sources)
    try:
        with opening.target(given) as (target, run):
            plan = run(compare(target, documents, sources, allow_empty=allow_empty))
    except NoDataFolder:
        import asyncio

        plan = asyncio.run(compare(None, documents, sources, allow_empty=allow_empty))
    plan.say(given.terminal)


def _check_sync(given: Invocation) -> None:
    arguments = given.arguments
    for flag, value in (
        ("--sync-name", arguments.sync_name),
        ("--allow-empty", arguments.allow_empty),
    ):
        if value and not arguments.sync:
            raise BadSettings("{flag} is for --sync", flag=flag)
