"""The command `index`: files as documents of a collection."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now

if TYPE_CHECKING:
    from server.sources.source import Options

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
    )
    return index_sources(given, arguments.sources, options)


def index_sources(given: Invocation, names: Sequence[str], options: "Options") -> int:
    """Store the documents of some sources; return the exit status."""
    from server.cli.ingest import index_documents
    from server.cli.report import Report
    from server.sources.readers import find_sources, read_documents

    arguments, terminal = given.arguments, given.terminal
    chunks = opening.chunks(given)
    with Report(
        terminal,
        keep_going=arguments.keep_going,
        verbose=arguments.verbose,
        file=arguments.report,
    ) as report:
        sources = find_sources(names, options, report.notes, report.problems)
        with opening.target(given, create=True) as (target, run):
            run(target.prepare(chunks))
            work = index_documents(
                target,
                read_documents(*sources),
                sum(source.n_bytes for source in sources),
                clock=now,
                terminal=terminal,
                problems=report.problems,
            )
            terminal.say(run(work).summary(report.problems.number))
    return SOME_WRONG if report.problems.number else 0
