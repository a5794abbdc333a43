"""Metadata that is changed alone: nothing is embedded, and chunks keep their vectors.

How this works. A row never changes, and caches, snapshots of the index and pages rely on that. So a changed
document is written like one that is sent again: under a new number, with the vectors that it had. It is
the newest document afterwards.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from server.collections import read_cost
from server.collections.document_limits import check_all_paths, check_chunks
from server.collections.empty_collection import EmptyCollection
from server.collections.live_collection import LiveCollection
from server.collections.read_threads import ReadThreads
from server.collections.writing.merge_patch import Changed, Patch, patched
from server.errors import RequestTooLarge
from server.store.collection import Collection
from server.store.filters.tree import Filter
from server.store.reading.parts import parts_of
from server.store.records import Document
from server.store.searching.rows import labels as labels_of
from server.store.sqlite.read_limit import CHANGE, limited, within_limit

# Of one request, as of a request that stores documents.
MAX_DOCUMENTS = 10_000
# Characters of the texts that are read and written again.
MAX_CHARACTERS = 1 << 25


async def change_by_ids(
    collection: LiveCollection | EmptyCollection, patches: Mapping[str, Patch], reads: ReadThreads
) -> Changed:
    """Change the metadata of documents, all or none; patches: by id.

    Raises RequestTooLarge where that takes longer than a read may, and changes none.
    """
    if isinstance(collection, EmptyCollection):
        return Changed([], list(patches))

    def change(found: Collection) -> Changed:
        with limited(reads.removal_limit(CHANGE)):
            return _change(found, list(patches), patches)

    return await collection.write(change)


async def change_by_filter(
    collection: LiveCollection | EmptyCollection, filter: Filter, patch: Patch, reads: ReadThreads
) -> Changed:
    """Change the metadata of every document that a filter keeps, all or none.

    Raises RequestTooLarge where that takes longer than a read may, or changes too many, and changes none.
    """
    if isinstance(collection, EmptyCollection):
        return Changed([], [])

    def change(found: Collection) -> Changed:
        with limited(reads.removal_limit(CHANGE)):
            ids = found.documents.ids(filter)
            if len(ids) > MAX_DOCUMENTS:
                raise RequestTooLarge(
                    f"the filter keeps {len(ids)} documents, at most {MAX_DOCUMENTS} are changed at once;"
                    " give a narrower filter, or list the documents and name them by their ids"
                )
            return _change(found, ids, dict.fromkeys(ids, patch))

    cost_s = read_cost.of_count(filter, len(collection.collection.index))
    with reads.admitted(cost_s):
        return await collection.write(change)


def _change(collection: Collection, ids: Sequence[str], patches: Mapping[str, Patch]) -> Changed:
    """Change documents in one transaction; no other write may run."""
    changed, missing = list[Document](), list[str]()
    characters = paths = 0
    for id in within_limit(ids):
        document = collection.documents.get([id]).get(id)
        if document is None:
            missing.append(id)
            continue
        if (found := patched(document, patches[id])) is None:
            continue
        paths += found.paths
        characters += len(document.text)
        _check_characters(characters)
        changed.append(found.document)
    check_all_paths(paths)
    if changed:
        _store(collection, changed)
    return Changed(changed, missing)


def _store(collection: Collection, changed: Sequence[Document]) -> None:
    """Write documents again with the vectors that they have."""
    documents, ids = collection.documents, [each.id for each in changed]
    # Before their vectors are read: a text may have a chunk for every few characters.
    labels = labels_of(documents, ids)
    check_chunks(changed, [labels[id] for id in ids])
    stored = parts_of(documents, ids)
    parts = [stored[id] for id in ids]
    vectors = np.concatenate([each.vectors for each in parts])
    collection.add(changed, vectors, [each.spans for each in parts])


def _check_characters(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise RequestTooLarge(
            f"the texts of these documents have more than {MAX_CHARACTERS} characters, the most that is"
            " written again at once; change fewer documents"
        )
