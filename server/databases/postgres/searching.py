"""Searches of a collection: by vector, by words, and by both.

By vector. Every row is compared, in the order of the exact cosine, while that is quick: in a small collection, or
where the filter keeps few. Else the index (HNSW, of the vectors in halves) proposes rows, and goes on while the
filter drops them; their exact cosines order them. Where it proposes too few, every row is compared after all.

By words. BM25 as FTS5 has it, over all chunks of the collection, whether a filter keeps them or not: so a score
says the same with and without a filter.
"""

from collections.abc import Sequence
from typing import NamedTuple

from server.databases.database import FoundRow
from server.databases.postgres.filters import Condition
from server.databases.postgres.literals import byteas, numbers, vector
from server.databases.postgres.reading import document
from server.databases.postgres.schema import MARK, MAX_INDEXED, quoted
from server.databases.postgres.session import Session, Value
from server.store.filters.tree import Filter
from server.store.records import Chunk, Info, Span
from server.store.words.ranking import K1, B
from server.types import Vectors

# Chunks up to which all are compared.
EXACT = 20_000
# Rows that the index proposes for each that is wanted, and at least: their exact order differs from that in halves.
PROPOSED, LEAST_PROPOSED = 2, 100
# What pgvector takes for the width of its search.
WIDEST = 1_000
LEAST_IDF = 1e-6
# Of reciprocal rank fusion, as in its paper and every engine; and how far down each ranking is read.
RANKS, DEPTH = 60, 100


class Scored(NamedTuple):
    label: int
    score: float


def settings(k: int) -> dict[str, str]:
    """Return what a search of the index for `k` rows sets."""
    return {
        "hnsw.iterative_scan": "strict_order",
        "hnsw.ef_search": str(min(WIDEST, max(LEAST_PROPOSED, PROPOSED * k))),
    }


def nearest(
    session: Session, info: Info, query: Vectors, k: int, filter: Filter | None
) -> list[Scored]:
    """Return the `k` rows with the greatest cosine, best first; float32 (D,), unit length."""
    if not _is_large(session, info, filter):
        return _compared(session, info, query, k, filter)
    found = _proposed(session, info, query, k, filter)
    return found if len(found) == k else _compared(session, info, query, k, filter)


def by_words(
    session: Session, info: Info, words: Sequence[str], k: int, filter: Filter | None
) -> list[Scored]:
    """Return the `k` rows with the greatest BM25 of these terms, best first; only such that have one."""
    schema = quoted(info.name)
    kept = Condition(schema, (byteas(dict.fromkeys(words)), k))
    where = "" if filter is None else f"{_of_documents(schema)} WHERE {kept.sql(filter)}"
    found = session.rows(
        f"""
        WITH every AS (
            SELECT chunks::float8 AS chunks, greatest(terms, 1)::float8 / greatest(chunks, 1) AS usual
            FROM {schema}.{MARK}
        ), postings AS (
            SELECT term, label, occurrences::float8 AS n, chunk_terms::float8 AS size
            FROM {schema}.terms WHERE term = ANY ($1::bytea[])
        ), weights AS (
            SELECT term, greatest({LEAST_IDF}, ln((chunks - count(*) + 0.5) / (count(*) + 0.5))) AS idf
            FROM postings, every GROUP BY term, chunks
        ), scores AS (
            SELECT label, sum(idf * n * {K1 + 1} / (n + {K1} * ({1 - B} + {B} * size / usual))) AS score
            FROM postings JOIN weights USING (term), every GROUP BY label
        )
        SELECT c.label, c.score FROM scores c {where} ORDER BY c.score DESC, c.label LIMIT $2::bigint
        """,
        *kept.values,
    )
    return [Scored(*row) for row in found]


def fused(rankings: Sequence[Sequence[Scored]], k: int) -> list[Scored]:
    """Return the `k` best of several rankings by their reciprocal ranks, best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            scores[found.label] = scores.get(found.label, 0.0) + 1 / (RANKS + rank)
    best = sorted(scores, key=lambda label: (-scores[label], label))
    return [Scored(label, scores[label]) for label in best[:k]]


def detailed(session: Session, info: Info, found: Sequence[Scored]) -> list[FoundRow]:
    """Return found rows with their chunks; of a long document only the bytes of the chunk are sent."""
    schema = quoted(info.name)
    rows = session.rows(
        "SELECT c.label, c.span_begin, c.span_end, c.bytes_begin = 0 AND c.bytes_end = length(d.text),"
        " d.id, d.title, substring(d.text FROM c.bytes_begin + 1 FOR c.bytes_end - c.bytes_begin), d.metadata"
        f" FROM {schema}.chunks c JOIN {schema}.documents d ON d.number = c.document"
        " WHERE c.label = ANY ($1::bigint[])",
        numbers(each.label for each in found),
    )
    chunks = {}
    for label, begin, end, whole, *columns in rows:
        of = document(*columns)
        chunks[label] = Chunk(of.id, of.text, of.title, of.metadata, Span(begin, end), whole)
    return [FoundRow(each.label, each.score, chunks[each.label]) for each in found]


def _is_large(session: Session, info: Info, filter: Filter | None) -> bool:
    """Return whether more chunks are searched than are quickly compared, and there is an index."""
    if info.dimension > MAX_INDEXED:
        return False
    schema = quoted(info.name)
    is_large = bool(session.rows(f"SELECT chunks > {EXACT} FROM {schema}.{MARK}")[0][0])
    if filter is None or not is_large:
        return is_large
    kept = Condition(schema)
    counted = session.rows(
        f"SELECT count(*) FROM (SELECT FROM {schema}.documents d JOIN {schema}.chunks c"
        f" ON c.document = d.number WHERE {kept.sql(filter)} LIMIT {EXACT + 1}) AS kept",
        *kept.values,
    )
    return bool(counted[0][0] > EXACT)


def _compared(
    session: Session, info: Info, query: Vectors, k: int, filter: Filter | None
) -> list[Scored]:
    schema = quoted(info.name)
    kept = Condition(schema, (vector(query), k))
    where = (
        ""
        if filter is None
        else f"JOIN {schema}.documents d ON d.number = c.document WHERE {kept.sql(filter)}"
    )
    # subtle: no index is on this expression, so all rows are read and sorted.
    return _scored(
        session,
        f"SELECT c.label, -(c.direction <#> $1::vector) FROM {schema}.chunks c {where}"
        " ORDER BY c.direction <#> $1::vector, c.label LIMIT $2::bigint",
        kept.values,
    )


def _proposed(
    session: Session, info: Info, query: Vectors, k: int, filter: Filter | None
) -> list[Scored]:
    schema = quoted(info.name)
    kept = Condition(schema, (vector(query), k, max(LEAST_PROPOSED, PROPOSED * k)))
    where = ""
    if filter is not None:
        where = f"WHERE EXISTS (SELECT FROM {schema}.documents d WHERE d.number = c.document AND {kept.sql(filter)})"
    # subtle: $1::halfvec would make a parameter in halves of $1, everywhere in the statement.
    half = f"halfvec({info.dimension})"
    # The planner knows little of how many rows a filter keeps, and may sort all of them instead of asking the index.
    session.rows("SET LOCAL enable_sort = off")
    found = _scored(
        session,
        "SELECT label, -(direction <#> $1::vector) FROM ("
        f"SELECT c.label, c.direction FROM {schema}.chunks c {where}"
        f" ORDER BY (c.direction::{half}) <#> $1::vector::{half} LIMIT $3::bigint"
        ") AS proposed ORDER BY direction <#> $1::vector, label LIMIT $2::bigint",
        kept.values,
    )
    session.rows("SET LOCAL enable_sort = on")
    return found


def _scored(session: Session, sql: str, values: Sequence[Value]) -> list[Scored]:
    return [Scored(*row) for row in session.rows(sql, *values)]


def _of_documents(schema: str) -> str:
    return f"JOIN {schema}.chunks USING (label) JOIN {schema}.documents d ON d.number = chunks.document"
