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
    without = _of_documents(database, [any_of(asked.excluded)]) if asked.excluded else NO_LABELS
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
    """Return the chunks of the documents that have every phrase, in whichever chunks, within a selection."""
    labels = _of_documents(database, [all_of(quote) for quote in quotes])
    return Selection.of_labels(labels if within is None else labels[within.contains(labels)])


def _of_documents(database: Database, expressions: Sequence[str]) -> Labels:
    """Return every chunk of the documents that have a chunk for each MATCH expression: int64 (N,), ascending."""
    having = (
        "SELECT document FROM parts WHERE label IN (SELECT rowid FROM words WHERE words MATCH ?)"
    )
    documents = " INTERSECT ".join([having] * len(expressions))
    ((labels,),) = database.rows(
        f"SELECT json_group_array(label) FROM parts WHERE document IN ({documents})", expressions
    )
    return np.sort(np.array(orjson.loads(labels), dtype=np.int64))
