"""Rows that a search with options reads of the database: which chunks a document has, and whose a chunk is."""

import json
from collections.abc import Sequence

from server.store.documents import Documents
from server.types import Labels


def labels(documents: Documents, ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the labels of each document's chunks, ascending, by its id; unknown ids are left out."""
    found: dict[str, list[int]] = {}
    sql = (
        "SELECT id, label FROM documents JOIN parts ON document = number"
        " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY label"
    )
    for id, label in documents.database.rows(sql, (json.dumps(list(ids)),)):
        found.setdefault(id, []).append(label)
    return found


def owners(documents: Documents, labels: Labels) -> list[int]:
    """Return the numbers of the documents that have any of these chunks, ascending."""
    sql = (
        "SELECT DISTINCT document FROM parts WHERE label IN (SELECT value FROM json_each(?))"
        " ORDER BY document"
    )
    return [number for (number,) in documents.database.rows(sql, (json.dumps(labels.tolist()),))]


def first_labels(documents: Documents, numbers: Sequence[int]) -> dict[int, int]:
    """Return the label of each document's first chunk, by the document's number."""
    sql = (
        "SELECT document, min(label) FROM parts"
        " WHERE document IN (SELECT value FROM json_each(?)) GROUP BY document"
    )
    return dict(documents.database.rows(sql, (json.dumps(list(numbers)),)))
