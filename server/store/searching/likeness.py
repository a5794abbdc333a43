"""The vector of a search by stored documents: near to some of them, away from others."""

import json
from collections.abc import Sequence

import numpy as np

from server.errors import DocumentNotFound, InvalidRequest, shown
from server.store.documents import Documents
from server.store.searching import rows
from server.store.searching.options import Like
from server.types import Vectors, unit

# Chunks of a document that are read; of more, as many at even distances.
MOST_CHUNKS = 256


def direction(documents: Documents, like: Like) -> Vectors:
    """Return the vector to search with: float32 (D,). Raises DocumentNotFound, InvalidRequest.

    It is the mean of `ids`, and moved away from the mean of `unlike` by the difference of both. A document's
    vector is the mean of its chunks' vectors.
    """
    labels = rows.labels(documents, like.all)
    for id in like.all:
        if id not in labels:
            raise missing(id)
    towards = _mean(documents, [labels[id] for id in like.ids])
    found = towards
    if like.unlike:
        found = 2 * towards - _mean(documents, [labels[id] for id in like.unlike])
    if float(np.linalg.norm(found)) < 1e-6:
        raise InvalidRequest(
            f"the vectors of like.ids {json.dumps(like.ids[:3])[:200]} have no common direction; name other"
            " documents",
            param="like",
        )
    return found.astype(np.float32)


def missing(id: str) -> DocumentNotFound:
    return DocumentNotFound(f"there is no document {shown(id)}, which `like` names")


def _mean(documents: Documents, labels_of_each: Sequence[Sequence[int]]) -> Vectors:
    means = []
    for labels in labels_of_each:
        step = -(-len(labels) // MOST_CHUNKS)
        some = np.array(labels[::step], dtype=np.int64)
        means.append(unit(documents.vectors(some)).mean(axis=0))
    return np.asarray(unit(np.stack(means)).mean(axis=0))
