"""Commands that read, write and search the documents of a collection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings

if TYPE_CHECKING:
    from server.sources.notes import Notes


@contextmanager
def _noted(given: Invocation, notes: "Notes") -> Iterator[None]:
    """Print the notes on the files that were read, also where the command fails."""
    try:
        yield
    finally:
        for note in notes.messages():
            given.terminal.inform(note)


def export(given: Invocation) -> int:
    """Write all documents to a file, or all vectors and their texts to a pair of files."""
    arguments, terminal = given.arguments, given.terminal
    _check_pair(given, arguments.file)
    from server.cli.ingest import Meter
    from server.cli.transfer import export_documents, export_pair

    meter = Meter(terminal, now)
    if arguments.pair is None:
        with opening.target(given) as (target, run):
            read = target.with_parts if arguments.with_vectors else None
            number = run(export_documents(target, arguments.file, meter, read))
        terminal.inform("exported {number:,} documents", number=number)
        return 0
    vectors, texts = arguments.pair
    with opening.local(given) as (local, _):
        number, joined = export_pair(local.collection, vectors, texts, meter)
    terminal.inform(
        "exported {number:,} vectors; line breaks became spaces in {joined:,} texts",
        number=number,
        joined=joined,
    )
    return 0


def import_(given: Invocation) -> int:
    """Add what `export` wrote."""
    arguments, terminal = given.arguments, given.terminal
    _check_pair(given, arguments.source)
    if arguments.vectors is not None and arguments.embedder is None:
        raise BadSettings("--vectors needs --embedder, the name of what made them")
    if arguments.embedder is not None:
        return _import_given(given)
    if arguments.pair is None:
        from server.cli.commands.index import index_sources
        from server.sources.source import Options

        return index_sources(
            given, [arguments.source], Options(format="jsonl", encoding=arguments.encoding)
        )
    from server.cli.transfer import Pair, import_pair

    vectors, texts = arguments.pair
    chunks, pair = opening.chunks(given), Pair(vectors, texts, arguments.encoding)
    with opening.local(given, create=True) as (local, run), _noted(given, pair.notes):
        run(local.prepare(chunks))
        terminal.say(run(import_pair(local, pair, clock=now, terminal=terminal)).summary())
    terminal.say("blank lines: {number:,}", number=pair.blank)
    return 0


def _import_given(given: Invocation) -> int:
    """Add documents with their vectors."""
    from server.cli.exchange.given_import import import_given
    from server.cli.exchange.npy_file import NpyRows
    from server.cli.exchange.vector_lines import VectorLines
    from server.sources.readers import find_source
    from server.sources.source import Options

    arguments, terminal = given.arguments, given.terminal
    if arguments.pair is not None or arguments.chunk_tokens is not None:
        raise BadSettings(
            "--embedder is for a FILE whose documents bring their vectors, one a part"
        )
    rows = None if arguments.vectors is None else NpyRows(arguments.vectors)
    source = find_source(arguments.source, Options(format="jsonl", encoding=arguments.encoding))
    (file,) = source.files
    with _noted(given, source.notes), opening.target(given, create=True) as (target, run):
        lines = VectorLines(file, source, rows)
        done = import_given(
            target, lines, arguments.embedder, source.n_bytes, clock=now, terminal=terminal
        )
        terminal.say(run(done).summary())
    return 0


def _check_pair(given: Invocation, file: str | None) -> None:
    if (file is None) == (given.arguments.pair is None):
        raise BadSettings("give either FILE or --pair")
    if given.arguments.pair and given.arguments.url:
        raise BadSettings(
            "--pair reads and writes vectors where they are stored: stop the server and leave out "
            "--url"
        )
