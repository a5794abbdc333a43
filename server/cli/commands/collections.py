"""Commands on whole collections: list, create, rename, remove, and their aliases."""

import asyncio
import contextlib
from collections.abc import Mapping

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.errors import BadArtifact, StoreError
from server.messages.message import Message


def list_(given: Invocation) -> int:
    """List the collections of the data folder or of a server."""
    damaged: Mapping[str, StoreError] = {}
    server = opening.server(given)
    if server is None:
        from server.store.upkeep.maintenance import collections

        found, damaged = collections(given.config.data, _known_models(given))
    else:
        found = asyncio.run(opening.remote(server).listed())
    for name, documents, model in found:
        if documents is None:
            given.terminal.say(
                "{name}  in a vector database that does not answer  model {model}",
                name=name,
                model=model,
            )
            continue
        given.terminal.say(
            "{name}  {documents:,} documents  model {model}",
            name=name,
            documents=documents,
            model=model,
        )
    for name, error in damaged.items():
        given.terminal.inform("{name}: {why}", name=name, why=error)
    if not found and not damaged:
        given.terminal.say("no collections")
    return 1 if damaged else 0


def create(given: Invocation) -> int:
    """Create an empty collection."""
    from server.errors import AlreadyExists

    chunks, name = opening.chunks(given), given.arguments.collection
    with opening.target(given, create=True) as (target, run):
        if name in run(target.names()):
            raise AlreadyExists(f"collection {name!r} exists already", param="name")
        if name in run(target.aliases()):
            raise AlreadyExists(f"{name!r} is an alias already", param="name")
        run(target.prepare(chunks))
    given.terminal.say("created {name}", name=name)
    return 0


def remove(given: Invocation) -> int:
    """Remove a collection with all its documents."""
    from server.cli.confirmation import confirm

    name = given.arguments.collection
    with opening.target(given) as (target, run):
        question = Message(
            "remove collection {name} with its {number:,} documents?",
            name=name,
            number=run(target.count()),
        )
        if not confirm(given, question):
            return 1
        run(target.remove())
    given.terminal.say("removed {name}", name=name)
    return 0


def rename(given: Invocation) -> int:
    """Give a collection another name."""
    name, new, keep = given.arguments.collection, given.arguments.new, given.arguments.keep_alias
    with opening.target(given) as (target, run):
        run(target.rename(new, keep_alias=keep))
    given.terminal.say("renamed {name}: it is {new} now", name=name, new=new)
    return 0


def alias(given: Invocation) -> int:
    """Let an alias lead to a collection."""
    alias, name = given.arguments.alias, given.arguments.collection
    with opening.target(given) as (target, run):
        run(target.set_alias(alias))
    given.terminal.say("{alias} leads to {name} now", alias=alias, name=name)
    return 0


def aliases(given: Invocation) -> int:
    """List the aliases."""
    with opening.target(given) as (target, run):
        found = run(target.aliases())
    for alias, name in sorted(found.items()):
        given.terminal.out.write(f"{alias}  {name}\n")
    if not found:
        given.terminal.say("no aliases")
    return 0


def unalias(given: Invocation) -> int:
    """Delete an alias; its collection stays."""
    alias = given.arguments.alias
    with opening.target(given) as (target, run):
        run(target.forget_alias(alias))
    given.terminal.say("deleted the alias {alias}", alias=alias)
    return 0


def _known_models(given: Invocation) -> Mapping[str, str]:
    """Return the ids of the models of --model by fingerprint, without models that are not there."""
    from server.inference.manifest import MANIFEST_FILE, parse_manifest

    found = {}
    for place in given.config.model:
        with contextlib.suppress(BadArtifact):
            manifest = parse_manifest(place.folder / MANIFEST_FILE)
            found[manifest.fingerprint] = place.name or manifest.model_id
    return found
