"""Finds the chunks that have a query's words, in a collection's database."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from server.store.selection import Selection
from server.store.sqlite.database import Database
from server.store.words.asked import Quote
from server.store.words.matches import NO_LABELS, NO_MATCHES, Matches
from server.store.words.ranking import REQUIRED, all_of, any_of, frequencies, ranked
from server.store.words.selected import selected, wanted
from server.store.words.vocabulary import NOTHING, Vocabulary
from server.types import Labels


def find(
    database: Database,
    query: str,
    n_chunks: int,
    within: Selection | None = None,
    vocabulary: Vocabulary = NOTHING,
) -> Matches:
    """Return the chunks that have enough of the query's words, with their BM25.

    n_chunks: of the whole collection. within: the labels that may be found. What a query requires and
    excludes holds for documents: several phrases may stand in different chunks of one, and a document with
    an excluded word in any chunk is left out. Raises InvalidRequest for a query that only excludes.
    """
    asked = vocabulary.ask(query)
    asked.check()
    if not asked.lookups:
        return NO_MATCHES
    without = _of_documents(database, any_of(asked.excluded)) if asked.excluded else NO_LABELS
    counts: dict[str, int] = dict(database.rows(*frequencies(asked.lookups)))
    ranking = ranked(asked, counts, n_chunks, wanted(REQUIRED, n_chunks, within))
    if ranking is None:
        return replace(NO_MATCHES, is_strict=bool(asked.required), excluded=without)
    if len(asked.required) > 1:
        within = _together(database, asked.required, within)
    condition, parameters = selected(within)
    # One row, because a thread may wait for the interpreter lock after each. Sorting the few
    # thousand matches here costs less than SQLite needs for the best hundred.
    ((labels, ranks),) = database.rows(
        f"SELECT json_group_array(rowid), json_group_array(score) FROM ({ranking.sql}{condition})",
        (*ranking.parameters, *parameters),
    )
    found = np.array(orjson.loads(labels), dtype=np.int64)
    scores = -np.array(orjson.loads(ranks), dtype=np.float32)
    if len(without):
        allowed = ~np.isin(found, without)
        found, scores = found[allowed], scores[allowed]
    order = np.lexsort((found, -scores))
    return Matches(
        found[order],
        scores[order],
        ranking.attainable,
        ranking.terms,
        is_strict=bool(asked.required),
        excluded=without,
    )


def _together(database: Database, quotes: Sequence[Quote], within: Selection | None) -> Selection:
    """Return the chunks with a phrase, of the documents that have every phrase, within a selection."""
    expressions = dict.fromkeys(map(all_of, quotes))
    having = [_having(database, expression) for expression in expressions]
    labels = np.unique(np.concatenate(having))
    if within is not None:
        labels = labels[within.contains(labels)]
    documents = _documents(database, labels)
    complete = np.unique(documents)
    for some in having:
        complete = np.intersect1d(complete, documents[np.isin(labels, some)])
    return Selection.of_labels(labels[np.isin(documents, complete)])


def _having(database: Database, expression: str) -> Labels:
    """Return the chunks that a MATCH expression finds: int64 (N,), ascending."""
    ((labels,),) = database.rows(
        "SELECT json_group_array(rowid) FROM words WHERE words MATCH ?", (expression,)
    )
    return np.sort(np.array(orjson.loads(labels), dtype=np.int64))


def _documents(database: Database, labels: Labels) -> Labels:
    """Return the number of each chunk's document: int64 (N,), in the order of the labels."""
    # One row, because a thread may wait for the interpreter lock after each.
    ((rows,),) = database.rows(
        "SELECT json_group_array(document) FROM (SELECT coalesce(document, -value) AS document"
        " FROM json_each(?) LEFT JOIN parts ON label = value ORDER BY json_each.id)",
        (orjson.dumps(labels.tolist()).decode(),),
    )
    return np.array(orjson.loads(rows), dtype=np.int64)


def _of_documents(database: Database, expression: str) -> Labels:
    """Return every chunk of the documents that have a chunk for a MATCH expression: int64 (N,), ascending."""
    ((labels,),) = database.rows(
        "SELECT json_group_array(label) FROM parts WHERE document IN (SELECT document FROM parts"
        " WHERE label IN (SELECT rowid FROM words WHERE words MATCH ?))",
        (expression,),
    )
    return np.sort(np.array(orjson.loads(labels), dtype=np.int64))
