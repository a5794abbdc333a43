"""The server on this machine that uses a data folder, found by the folder's lock.

Only one process can use a data folder. A command that finds it in use by a server therefore asks that server.

What a hostile lock file could do. Whoever can write the file could name an address of their own, to get the
key of this user and the documents. So an address must be of this machine, and in numbers: a name could lead
elsewhere. The server must return the random name that stands in the file: behind a forgotten port of a
container another server may listen, which must not get these documents. And a key is sent only if the file
is this user's own, or root's.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from server.cli.connection import UNIX, Server, is_own
from server.clock import now
from server.errors import BadSettings, StartupError
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.folder_lock import LOCK_FILE, Holder, holder_of

# A server that opens a large collection, or finishes what it has accepted, does not answer for so long.
WAIT_S = 30.0
POLL_S = 0.2
# A wait that is worth a line.
SHORT_S = 1.0
INSTANCE = "x-inkwell-instance"

Pause = Callable[[float], Awaitable[None]]


async def find_server(
    data: Path, key: str | None, terminal: Terminal, pause: Pause = asyncio.sleep
) -> Server | None:
    """Return the server that uses a data folder, with its key; None where none does.

    Waits for one that starts or stops. Raises StartupError where it does not answer in time, or another
    server answers in its place.
    """
    began, waiting = now(), False
    while (holder := _holder(data)) is not None and holder.addresses:
        found = await _answering(data, holder)
        if isinstance(found, Server):
            if key is not None:
                _check_owner(data, found)
            terminal.inform(
                "the data folder {data} is in use by the server at {url}: it does the work",
                data=data,
                url=found.url,
            )
            return found.with_key(key)
        waited = now() - began
        if waited >= WAIT_S:
            raise StartupError(
                "{data} is in use by process {pid}, a server that has not answered for {seconds:.0f} s"
                " ({why}); wait until it has started or stopped, or name its address with --url",
                data=data,
                pid=holder.pid,
                seconds=WAIT_S,
                why=found,
            )
        if waited >= SHORT_S and not waiting:
            waiting = True
            terminal.inform(
                "waiting for the server that uses {data}, which starts or stops", data=data
            )
        await pause(POLL_S)
    return None


def _holder(data: Path) -> Holder | None:
    content = holder_of(data)
    return None if content is None else Holder.of(content)


async def _answering(data: Path, holder: Holder) -> Server | Message:
    """Return the server at the first address where it answers, a Unix socket before the port; else why not."""
    if not holder.instance:
        return Message("it is starting")
    why = Message("it is stopping")
    for url in sorted(holder.addresses, key=lambda each: not each.startswith(UNIX)):
        if not is_own(url):
            raise StartupError(
                "{data} is in use by process {pid} at {url}, which is no address of this machine; name the"
                " server with --url if it is right",
                data=data,
                pid=holder.pid,
                url=url,
            )
        server = Server(url, own=True)
        try:
            reply = await server.ask("GET", "/health", None)
        except StartupError as error:
            why = error.sentence
            continue
        if not reply.ok:
            continue
        if reply.headers.get(INSTANCE) == holder.instance:
            return server
        raise StartupError(
            "{data} is in use by process {pid}, but another server answers at {url}: the first one may run"
            " in a container; name its address with --url",
            data=data,
            pid=holder.pid,
            url=url,
        )
    return why


def _check_owner(data: Path, server: Server) -> None:
    """Raise BadSettings where another user could have written the address into the lock file."""
    found = (data / LOCK_FILE).lstat()
    private = stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IWOTH
    if not private or found.st_uid not in (0, os.geteuid()):
        raise BadSettings(
            "{data} belongs to another user, so the key is not sent to {url}, which its lock names; if the"
            " address is right, give --url {url}",
            data=data,
            url=server.url,
        )
