"""Commands that look after collections: copies, checks and new vectors."""

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.messages.message import Message


def backup(given: Invocation) -> int:
    """Copy a collection into one file."""
    from server.store.upkeep.maintenance import backup

    name = given.arguments.name
    size = backup(given.config.data, name, given.arguments.file)
    given.terminal.say("backed up {name}: {size:,} bytes", name=name, size=size)
    return 0


def restore(given: Invocation) -> int:
    """Make a collection from a backup."""
    from server.store.upkeep.restoring import restore

    file, name, force = given.arguments.file, given.arguments.collection, given.arguments.force
    found = restore(given.config.data, file, name, force=force)
    given.terminal.say(
        "restored {name}: {documents:,} documents", name=found.name, documents=found.documents
    )
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
