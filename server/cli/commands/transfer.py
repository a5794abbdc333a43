"""The command `transfer`: copies a collection into another store of the same server."""

import asyncio
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings
from server.messages.message import Message

if TYPE_CHECKING:
    from server.cli.exchange.followed_transfer import Seen


def transfer(given: Invocation) -> int:
    """Copy a collection into another store, with its vectors; status 1 if the copy is not whole."""
    from server.cli.exchange.followed_transfer import Seen, follow
    from server.cli.ingest import Meter

    asked, terminal = given.arguments, given.terminal
    server = opening.server(given)
    if server is None:
        raise BadSettings(
            "a transfer is done by a running server: start it with --vector-database, or name it with --url"
        )
    order = {"to": asked.to, "database": asked.database, "prune": asked.prune, "alias": asked.alias}
    meter = Meter(terminal, now)
    waited_for = None

    def show(seen: Seen) -> None:
        nonlocal waited_for
        if seen.state == "waiting" and seen.why != waited_for:
            meter.finish()
            terminal.inform("waiting: {why}", why=seen.why)
        waited_for = seen.why if seen.state == "waiting" else None
        share = min(seen.done / max(seen.total, 1), 1)
        said = Message("copied {done:,}/{total:,}", done=seen.done, total=seen.total)
        meter.show(said, seen.done, share)

    remote = opening.remote(server, asked.collection)
    with asyncio.Runner() as runner:
        try:
            seen = runner.run(follow(remote, order, show, asyncio.sleep))
        finally:
            meter.finish()
    if seen.state == "failed":
        terminal.inform(
            "not transferred: {why}; run the same command again to go on",
            why=seen.why or seen.state,
        )
        return 1
    _conclude(given, seen)
    return 0


def _conclude(given: Invocation, seen: "Seen") -> None:
    asked, terminal = given.arguments, given.terminal
    if seen.why is not None:
        terminal.say("{why}", why=seen.why)
        return
    terminal.say(
        "{name} is copied to {to}: {number:,} documents, {written:,} written, {removed:,} removed; {compared:,}"
        " compared with their vectors are the same",
        name=asked.collection,
        to=asked.to,
        number=seen.done,
        written=seen.written,
        removed=seen.removed,
        compared=seen.compared,
    )
    if seen.others:
        terminal.inform(
            "{to} has {number:,} other documents, which stay; --prune removes what {name} does not have",
            to=asked.to,
            number=seen.others,
            name=asked.collection,
        )
    if asked.alias is not None:
        terminal.say("{alias} leads to {name} now", alias=asked.alias, name=asked.to)
