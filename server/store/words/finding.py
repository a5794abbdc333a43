"""Finds the chunks that have a query's words, in a collection's database."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from server.store.selection import Selection
from server.store.sqlite.database import Database
from server.store.words.frequent import FrequentTerms, Size
from server.store.words.matches import NO_LABELS, NO_MATCHES, Matches
from server.store.words.ranking import REST, excluded, ranked
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
    learned of its terms. Raises InvalidRequest for a query that only excludes.
    """
    asked = vocabulary.ask(query)
    asked.check()
    if not asked.lookups:
        return NO_MATCHES
    without = _having(database, excluded(asked)) if asked.excluded else NO_LABELS
    frequent = frequent or FrequentTerms()
    now = Size(n_chunks, last_label)
    counts = frequent.counted(database, asked, now)
    ranking = ranked(asked, counts, n_chunks)
    if ranking is None:
        return replace(NO_MATCHES, is_strict=bool(asked.required), excluded=without)
    terms = ranking.terms
    if within is None:
        found, scores = _scored(database, ranking.sql, ranking.parameters, None)
    else:
        parameters = ranking.within(within.count / max(1, n_chunks), n_chunks)
        found, scores = _scored(database, ranking.sql, parameters, within)
        if len(found) < min(ENOUGH, within.count) and ranking.rest:
            # Which of these are looked for depends on how frequent they are.
            counts = frequent.counted(database, asked, now, is_exact=True)
            exact = ranked(asked, counts, n_chunks)
            assert exact is not None and exact.rest
            more, low = _scored(database, REST, exact.rest, within)
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
    database: Database, sql: str, parameters: Sequence[str | float], within: Selection | None
) -> tuple[Labels, Vectors]:
    """Return the chunks that a statement finds, and their scores."""
    condition, more = selected(within)
    # One row, because a thread may wait for the interpreter lock after each. Sorting the few
    # thousand matches here costs less than SQLite needs for the best hundred.
    ((labels, ranks),) = database.rows(
        f"SELECT json_group_array(rowid), json_group_array(score) FROM ({sql}{condition})",
        (*parameters, *more),
    )
    found = np.array(orjson.loads(labels), dtype=np.int64)
    return found, -np.array(orjson.loads(ranks), dtype=np.float32)


def _having(database: Database, expression: str) -> Labels:
    """Return the chunks that a MATCH expression finds: int64 (N,), ascending."""
    ((labels,),) = database.rows(
        "SELECT json_group_array(rowid) FROM words WHERE words MATCH ?", (expression,)
    )
    return np.sort(np.array(orjson.loads(labels), dtype=np.int64))
