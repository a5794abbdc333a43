"""The kinds of collections that requests work on, and what those in vector databases refuse."""

from server.collections.empty_collection import EmptyCollection
from server.collections.external.abilities import refusal
from server.collections.external.collection import ExternalCollection
from server.collections.live_collection import LiveCollection

# On this server; and anywhere.
Local = LiveCollection | EmptyCollection
Readable = LiveCollection | EmptyCollection | ExternalCollection
Writable = LiveCollection | ExternalCollection


def local(collection: Readable) -> Local:
    """Return a collection of this server; raises InvalidRequest for one in a vector database."""
    if isinstance(collection, ExternalCollection):
        raise refusal(
            collection.name,
            collection.database,
            "this",
            "see docs/en/how-to/vector-database.md for what is",
        )
    return collection
