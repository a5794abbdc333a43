"""The command `index`: files as documents of a collection."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings, NoDataFolder

if TYPE_CHECKING:
    from server.cli.indexing.report import Report
    from server.cli.target import CollectionTarget
    from server.sources.problems import Problems
    from server.sources.source import Options, Source

# Some rows or files could not be read, and the rest is stored.
SOME_WRONG = 3


def index(given: Invocation) -> int:
    """Add the documents of files, folders, patterns or standard input."""
    from server.sources.columns import Columns
    from server.sources.patterns import Selection
    from server.sources.problems import Stopped
    from server.sources.source import Options
    from server.sources.values import Types

    arguments = given.arguments
    options = Options(
        format=arguments.format,
        encoding=arguments.encoding,
        columns=Columns(arguments.text_column, arguments.title_column, arguments.id_column),
        types=arguments.types or Types(),
        selection=Selection(tuple(arguments.include), tuple(arguments.exclude)),
        allow_empty=arguments.allow_empty,
    )
    _check_sync(given)
    if arguments.watch:
        from server.cli.indexing.watch import check_watchable

        check_watchable(arguments.sources)
    try:
        return index_sources(given, arguments.sources, options)
    except Stopped as error:
        raise BadSettings(
            "{error}; --keep-going stores what is right and lists what is wrong", error=error
        ) from None


def index_sources(given: Invocation, names: Sequence[str], options: "Options") -> int:
    """Store the documents of some sources; return the exit status."""
    from server.cli.indexing.report import Report

    arguments = given.arguments
    chunks = opening.chunks(given)
    with Report(
        given.terminal,
        keep_going=arguments.keep_going or arguments.watch,
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
                if arguments.watch:
                    report.finish()
                    _watch(given, target, run, sources)
    return SOME_WRONG if report.problems.number else 0


def find(
    given: Invocation, names: Sequence[str], options: "Options", report: "Report"
) -> "list[Source]":
    """Return the sources; with --sync, those that documents follow."""
    from server.sources.following import following
    from server.sources.readers import find_sources

    sources = find_sources(names, options, report.notes, report.problems)
    if not _follows(given):
        return sources
    return following(sources, given.arguments.sync_name)


async def store(given: Invocation, target: "CollectionTarget", sources: "Sequence[Source]") -> None:
    """Store the documents of sources, remove what vanished from those that are followed, and say so."""
    from server.cli.indexing.sync import remove_vanished
    from server.cli.ingest import index_documents
    from server.sources.following import Seen
    from server.sources.readers import read_documents

    terminal, seen, problems = given.terminal, Seen(), sources[0].problems
    documents = read_documents(*sources)
    if _follows(given):
        documents = seen.through(documents)
    before = await target.count()
    done = await index_documents(
        target,
        documents,
        sum(source.n_bytes for source in sources),
        clock=now,
        terminal=terminal,
        problems=problems,
    )
    terminal.say(done.summary(problems.number))
    # Others may write meanwhile, so this is for the eye: ids of two files may be the same by accident.
    if (replaced := done.added - max(0, await target.count() - before)) > 0:
        terminal.inform(
            "{number:,} of the added documents replaced a stored one of the same id",
            number=replaced,
        )
    if not _follows(given):
        return
    if problems.files:
        terminal.inform(
            "of {number:,} files with errors nothing is removed: what could not be read may be there",
            number=len(problems.files),
        )
    removed = await remove_vanished(target, sources, seen, allow_empty=given.arguments.allow_empty)
    terminal.say("removed {number:,}", number=removed)


def _dry_run(given: Invocation, sources: "Sequence[Source]") -> None:
    """Print what would change, and write nothing."""
    from server.cli.indexing.sync import compare
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
        if value and not _follows(given):
            raise BadSettings("{flag} is for --sync", flag=flag)
    if arguments.watch and arguments.dry_run:
        raise BadSettings(
            "--watch stores what changes, and --dry-run stores nothing: give one of them"
        )


def _follows(given: Invocation) -> bool:
    """Return whether documents follow their sources."""
    return bool(given.arguments.sync or given.arguments.watch)


def _watch(
    given: Invocation, target: "CollectionTarget", run: opening.Run, sources: "Sequence[Source]"
) -> None:
    """Follow the sources until the process is interrupted."""
    from server.cli.indexing.watch import Watch
    from server.sources.following import following
    from server.sources.notes import Notes
    from server.sources.readers import find_sources

    def find(name: str, problems: "Problems") -> "Source":
        found = find_sources([name], sources[0].options, Notes(), problems)
        return following(found, given.arguments.sync_name)[0]

    Watch(
        target,
        run,
        opening.chunks(given),
        given.terminal,
        find,
        sources,
        allow_empty=given.arguments.allow_empty,
    ).forever()
