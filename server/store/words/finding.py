"""Finds the chunks that have a query's words, in a collection's database."""

from dataclasses import replace

import numpy as np
import orjson

from server.store.selection import Selection
from server.store.sqlite.database import Database
from server.store.words.matches import NO_LABELS, NO_MATCHES, Matches
from server.store.words.ranking import REQUIRED, excluded, frequencies, ranked
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

    n_chunks: of the whole collection. within: the labels that may be found. Raises InvalidRequest for
    a query that only excludes.
    """
    asked = vocabulary.ask(query)
    asked.check()
    if not asked.lookups:
        return NO_MATCHES
    without = _having(database, excluded(asked)) if asked.excluded else NO_LABELS
    counts: dict[str, int] = dict(database.rows(*frequencies(asked.lookups)))
    ranking = ranked(asked, counts, n_chunks, wanted(REQUIRED, n_chunks, within))
    if ranking is None:
        return replace(NO_MATCHES, is_strict=bool(asked.required), excluded=without)
    condition, parameters = selected(within)
    # One row, because a thread may wait for the interpreter lock after each. Sorting the few
    # thousand matches here costs less than SQLite needs for the best hundred.
    ((labels, ranks),) = database.rows(
        f"SELECT json_group_array(rowid), json_group_array(score) FROM ({ranking.sql}{condition})",
        (*ranking.parameters, *parameters),
    )
    found = np.array(orjson.loads(labels), dtype=np.int64)
    scores = -np.array(orjson.loads(ranks), dtype=np.float32)
    order = np.lexsort((found, -scores))
    return Matches(
        found[order],
        scores[order],
        ranking.attainable,
        ranking.terms,
        ranking.every,
        is_strict=bool(asked.required),
        excluded=without,
    )


def _having(database: Database, expression: str) -> Labels:
    """Return the chunks that a MATCH expression finds: int64 (N,), ascending."""
    ((labels,),) = database.rows(
        "SELECT json_group_array(rowid) FROM words WHERE words MATCH ?", (expression,)
    )
    return np.sort(np.array(orjson.loads(labels), dtype=np.int64))
