"""Reads and replaces the synonyms and stop words of a collection on the event loop."""

from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.store.words.vocabulary import VOCABULARY, Given, given_of, note_of


async def vocabulary_given(collection: LiveCollection | EmptyCollection) -> Given:
    """Return the synonyms and stop words as they were given."""
    if isinstance(collection, EmptyCollection):
        return Given()
    return await collection.read(
        lambda: given_of(collection.collection.documents.noted(VOCABULARY))
    )


async def set_vocabulary(collection: LiveCollection, given: Given) -> None:
    """Replace both, checked before; on return they are on the disk, and every new search uses them."""
    note = note_of(given)
    await collection.write(lambda stored: stored.note(VOCABULARY, note))
