"""Finds the chunks that have a query's words, in a collection's database."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from server.store.selection import Selection
from server.store.sqlite.database import Database
from server.store.sqlite.integers import integers
from server.store.words.asked import Quote
from server.store.words.frequent import FrequentTerms, Size
from server.store.words.matches import NO_LABELS, NO_MATCHES, Matches
from server.store.words.ranking import REST, all_of, any_of, ranked
from server.store.words.selected import selected
from server.store.words.vocabulary import NOTHING, Vocabulary
from server.types import Labels, Vectors

# Where fewer texts that a filter keeps are found, those with frequent terms alone are looked for too.
ENOUGH = 10


def find(
    database: Database,
    query: str,
    n_chunks: int,
    within: Selection | None = None,
    vocabulary: Vocabulary = NOTHING,
    frequent: FrequentTerms | None = None,
    last_label: int = 0,
) -> Matches:
    """Return the chunks that have enough of the query's words, with their BM25.

    n_chunks, last_label: of the whole collection. within: the labels that may be found. frequent: what was
    learned of its terms. What a query requires and excludes holds for documents: several phrases may stand in
    different chunks of one, and a document with an excluded word in any chunk is left out. Raises InvalidRequest
    for a query that only excludes.
    """
    asked = vocabulary.ask(query)
    asked.check()
    if not asked.lookups:
        return NO_MATCHES
    without = _of_documents(database, any_of(asked.excluded)) if asked.excluded else NO_LABELS
    frequent = frequent or FrequentTerms()
    now = Size(n_chunks, last_label)
    counts = frequent.counted(database, asked, now)
    ranking = ranked(asked, counts, n_chunks)
    if ranking is None:
        return replace(NO_MATCHES, is_strict=bool(asked.required), excluded=without)
    terms = ranking.terms
    if len(asked.required) > 1:
        within = _together(database, asked.required, within)
    if within is None:
        found, scores = _scored(database, ranking.sql, ranking.parameters, None, without)
    else:
        parameters = ranking.within(within.count / max(1, n_chunks), n_chunks)
        found, scores = _scored(database, ranking.sql, parameters, within, without)
        if len(found) < min(ENOUGH, within.count) and ranking.rest:
            # Which of these are looked for depends on how frequent they are.
            counts = frequent.counted(database, asked, now, is_exact=True)
            exact = ranked(asked, counts, n_chunks)
            assert exact is not None and exact.rest
            more, low = _scored(database, REST, exact.rest, within, without)
            new = ~np.isin(more, found)
            found, scores = np.append(found, more[new]), np.append(scores, low[new])
            terms += exact.rest_terms
    order = np.lexsort((found, -scores))
    return Matches(
        found[order],
        scores[order],
        ranking.attainable,
        terms,
        is_strict=bool(asked.required),
        excluded=without,
    )


def _scored(
    database: Database,
    sql: str,
    parameters: Sequence[str | float],
    within: Selection | None,
    without: Labels,
) -> tuple[Labels, Vectors]:
    """Return the chunks that a statement finds, but for those in `without`, and their scores."""
    condition, more = selected(within)
    # Sorting the few thousand matches in `find` costs less than SQLite needs for the best hundred.
    ((labels, ranks),) = database.rows(
        f"SELECT json_group_array(rowid), json_group_array(score) FROM ({sql}{condition})",
        (*parameters, *more),
    )
    found = integers(labels)
    scores = -np.array(orjson.loads(ranks), dtype=np.float32)
    if not len(without):
        return found, scores
    allowed = ~np.isin(found, without)
    return found[allowed], scores[allowed]


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
    return np.sort(integers(labels))


def _documents(database: Database, labels: Labels) -> Labels:
    """Return the number of each chunk's document: int64 (N,), in the order of the labels."""
    ((rows,),) = database.rows(
        "SELECT json_group_array(document) FROM (SELECT coalesce(document, -value) AS document"
        " FROM json_each(?) LEFT JOIN parts ON label = value ORDER BY json_each.id)",
        (orjson.dumps(labels.tolist()).decode(),),
    )
    return integers(rows)


def _of_documents(database: Database, expression: str) -> Labels:
    """Return every chunk of the documents that have a chunk for a MATCH expression: int64 (N,), ascending."""
    ((labels,),) = database.rows(
        "SELECT json_group_array(label) FROM parts WHERE document IN (SELECT document FROM parts"
        " WHERE label IN (SELECT rowid FROM words WHERE words MATCH ?))",
        (expression,),
    )
    return np.sort(integers(labels))
