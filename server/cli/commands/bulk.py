"""The commands `bulk embed` and `bulk load`, for corpora that are embedded before they are served."""

from collections.abc import Iterator
from contextlib import contextmanager

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings, StoreError
from server.messages.message import Message


@contextmanager
def _packages() -> Iterator[None]:
    """Turn a missing package of the extra `bulk` into an error that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "server":
            raise
        raise BadSettings(
            "the package {name} is missing; install it with `make install-bulk`, or with"
            ' pip install "inkwell-embeddings[bulk]"',
            name=error.name,
        ) from None


def embed(given: Invocation) -> int:
    """Embed a corpus into files of vectors."""
    with _packages():
        from server.bulk.job import Job, Progress, run
        from server.bulk.layout import Layout, kept_of
    from server.cli.ingest import Meter
    from server.sources.columns import Columns
    from server.system.cpu import cpu_budget

    asked, terminal = given.arguments, given.terminal
    columns = Columns(asked.text_column, asked.title_column, asked.id_column)
    layout = Layout(columns, tuple(kept_of(each) for each in asked.keep), asked.with_text)
    job = Job(
        asked.inputs,
        asked.out.absolute(),
        given.config.model[0].folder.absolute(),
        layout,
        asked.address,
        given.config.lanes or cpu_budget(),
        asked.strict,
        asked.forget,
    )
    meter = Meter(terminal, now)

    def show(progress: Progress) -> None:
        if progress.is_reading:
            said = Message("read {done:,}/{total:,}", done=progress.done, total=progress.total)
        else:
            said = Message(
                "rows {done:,}/{total:,} · embedded {computed:,}",
                done=progress.done,
                total=progress.total,
                computed=progress.computed,
            )
        meter.show(said, progress.computed, progress.done / max(progress.total, 1))

    try:
        done = run(job, show)
    except OSError as error:
        raise StoreError("a file could not be read or written: {why}", why=error) from None
    finally:
        meter.finish()
    terminal.say(
        "{rows:,} vectors in {out}: {computed:,} texts embedded, {reused:,} taken from before, {rejected:,}"
        " rows rejected",
        rows=done.output.rows,
        out=asked.out,
        computed=done.computed,
        reused=done.reused,
        rejected=done.output.rejected,
    )
    return 0


def load(given: Invocation) -> int:
    """Store files of vectors in a collection."""
    with _packages():
        from server.cli.exchange.bulk_parts import BulkParts
        from server.cli.exchange.bulk_parts import load as load_parts

    terminal = given.terminal
    parts = BulkParts(given.arguments.folder)
    with opening.target(given, create=True) as (target, run):
        terminal.say(run(load_parts(target, parts, clock=now, terminal=terminal)).summary())
    return 0
