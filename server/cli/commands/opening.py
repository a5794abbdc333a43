"""The collection that a command works on, in this process or on a server."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from server.cli.invocation import Invocation
from server.config_sources import API_KEY
from server.errors import BadSettings, StoreError
from server.messages.message import Message

if TYPE_CHECKING:
    from server.cli.connection import Server
    from server.cli.local import Local
    from server.cli.remote import Remote
    from server.cli.target import Chunks, CollectionTarget

# Waits for the answer of a target.
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@contextlib.contextmanager
def local(given: Invocation, *, create: bool = False) -> Iterator[tuple["Local", Run]]:
    """Open the collection of the data folder.

    create: whether to create the folder if it is missing; else that raises NoDataFolder.
    """
    from server.cli.local import Local
    from server.store.upkeep.maintenance import check_folder

    if not create:
        check_folder(given.config.data)
    with asyncio.Runner() as runner:
        opened = Local(given.config, given.arguments.collection, runner.get_loop())
        try:
            yield opened, runner.run
        finally:
            runner.run(opened.close())


@contextlib.contextmanager
def target(given: Invocation, *, create: bool = False) -> Iterator[tuple["CollectionTarget", Run]]:
    """Open the collection on the server of `server`, or else that of the data folder; see `local`."""
    found = server(given)
    if found is None:
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(local(given, create=create))
            except StoreError:
                # A server may have taken the folder while this command loaded the model.
                found = server(given)
                if found is None:
                    raise
            else:
                yield opened
                return
    with asyncio.Runner() as runner:
        yield remote(found, given.arguments.collection), runner.run


def server(given: Invocation) -> "Server | None":
    """Return the server at --url, or the one that uses the data folder; None where none does."""
    if given.arguments.url is not None:
        from server.cli.connection import Server

        return Server(given.arguments.url, secret(given))
    from server.store.folder_lock import holder_of

    if holder_of(given.config.data) is None:
        return None
    from server.cli.running import find_server

    return asyncio.run(find_server(given.config.data, secret(given), given.terminal))


def remote(server: "Server", collection: str = "default") -> "Remote":
    """Return a collection of a server."""
    from server.cli.remote import Remote

    return Remote(server, collection)


def chunks(given: Invocation) -> "Chunks":
    """Return how --chunk-tokens and --chunk-overlap cut documents; raises BadSettings."""
    from server.cli.target import UNSAID
    from server.collections.chunking import default_overlap
    from server.store.records import ChunkRules

    size, overlap = given.arguments.chunk_tokens, given.arguments.chunk_overlap
    if not size:
        if overlap is not None:
            raise BadSettings(
                "--chunk-overlap {overlap} needs --chunk-tokens above 0", overlap=overlap
            )
        return UNSAID if size is None else None
    overlap = default_overlap(size) if overlap is None else overlap
    if overlap > size // 2:
        raise BadSettings(
            "--chunk-overlap {overlap} is outside 0 to {size}, half of --chunk-tokens",
            overlap=overlap,
            size=size // 2,
        )
    return ChunkRules(size, overlap)


def secret(given: Invocation) -> str | None:
    """Return the key of the server; raises BadSettings, which never shows the key."""
    file = given.arguments.key_file
    if file is None:
        found = given.variables.get(API_KEY)
        return _checked(found, API_KEY) if found else None
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why: object = (
            os.strerror(error.errno or 0) if isinstance(error, OSError) else Message("not UTF-8")
        )
        raise BadSettings("key file {file} cannot be read: {why}", file=file, why=why) from None
    return _checked(text.strip(), str(file))


def _checked(secret: str, place: str) -> str:
    if not (secret.isascii() and secret.isprintable()) or not secret or " " in secret:
        raise BadSettings(
            "{place} holds no key: a key is one line of letters, digits, - and _", place=place
        )
    return secret
