"""Commands on whole collections: list, create, remove."""

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


def _known_models(given: Invocation) -> Mapping[str, str]:
    """Return the ids of the models of --model by fingerprint, without models that are not there."""
    from server.inference.manifest import MANIFEST_FILE, parse_manifest

    found = {}
    for place in given.config.model:
        with contextlib.suppress(BadArtifact):
            manifest = parse_manifest(place.folder / MANIFEST_FILE)
            found[manifest.fingerprint] = place.name or manifest.model_id
    return found
