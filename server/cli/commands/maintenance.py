"""Commands that look after collections: copies, checks and new vectors."""

import asyncio

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.messages.message import Message


def backup(given: Invocation) -> int:
    """Copy a collection into one file, from a server if --url names one."""
    name, file = given.arguments.name, given.arguments.file
    if given.arguments.url is None:
        from server.store.upkeep.maintenance import backup

        size = backup(given.config.data, name, file)
    else:
        from server.cli.exchange.copies import receive

        server = opening.server(given)
        assert server is not None
        with asyncio.Runner() as runner:
            size = receive(opening.remote(server, name), file, runner.run)
    given.terminal.say("backed up {name}: {size:,} bytes", name=name, size=size)
    return 0


def restore(given: Invocation) -> int:
    """Make a collection from a backup, on a server if --url names one or one uses the data folder."""
    file, name, force = given.arguments.file, given.arguments.collection, given.arguments.force
    server = opening.server(given)
    if server is None:
        from server.store.upkeep.restoring import restore

        found = restore(given.config.data, file, name, force=force)
        name, documents = found.name, found.documents
    else:
        from server.cli.exchange.copies import send

        with asyncio.Runner() as runner:
            name, documents = send(opening.remote(server), file, name, runner.run, force=force)
    given.terminal.say("restored {name}: {documents:,} documents", name=name, documents=documents)
    return 0


def check(given: Invocation) -> int:
    """Look for damage; status 1 if there is any."""
    from server.store.upkeep.maintenance import check

    return 0 if check(given.config.data, given.arguments.collection, given.terminal.say) else 1


def reindex(given: Invocation) -> int:
    """Compute all vectors of a collection again."""
    from server.cli.ingest import Meter

    chunks = opening.chunks(given)
    with opening.target(given) as (target, run):
        meter = Meter(given.terminal, now)

        def show(done: int, total: int) -> None:
            share = min(done / max(total, 1), 1)
            said = Message("reindexed {done:,}/{total:,}", done=done, total=total)
            meter.show(said, done, share)

        try:
            run(target.reindex(chunks, show))
        finally:
            meter.finish()
    return 0
