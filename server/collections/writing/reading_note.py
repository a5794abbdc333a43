"""A collection's note of what the model read of its chunks, so that a reader knows whether to reindex.

A version that cuts or reads documents otherwise than the one before leaves stored chunks as they are.
Documents that are written later are read in the new way, and both ways are noted.
"""

import json

from server.store.collection import Collection
from server.store.passages.reading import READING

# The key of the note: a JSON list of ways, oldest first.
NOTE = "read_as"
# The way before there were such notes: no headings, cut after sentences.
PLAIN = "plain"


def ways(collection: Collection) -> list[str]:
    """Return the ways in which the chunks of a collection were read; none where it has no chunk."""
    noted = collection.documents.noted(NOTE)
    if noted is not None:
        try:
            found = json.loads(noted)
        except ValueError:
            found = None
        if isinstance(found, list):
            return [str(each) for each in found]
    # No revision: nothing was ever written.
    return [] if collection.documents.revision() is None else [PLAIN]


def reading_note(collection: Collection) -> dict[str, str]:
    """Return what to note with a write of this version; nothing where it is noted already."""
    known = ways(collection)
    if READING in known:
        return {}
    return {NOTE: json.dumps([*known, READING])}


def is_current(collection: Collection) -> bool:
    """Return whether all chunks of a collection were read in the way of this version."""
    return set(ways(collection)) <= {READING}
