"""Answers queries from a collection in a vector database: its chunks, best first, become hits of documents.

How this works. A database ranks chunks, and a hit is a document with its best chunk. So more chunks are asked
for than hits are wanted, and DEEPER times as many whenever one document's chunks took the places of others.
"hybrid" adds reciprocal ranks, in the database or here: scores of two databases, or of two searches of one, are
on scales of their own, and ranks are not.

A filter may keep one tenant's documents from another. So what the database returns is compared with the filter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from server.databases.database import FoundRow, VectorDatabase
from server.errors import DatabaseAway, DatabaseBusy, DatabaseRefused
from server.store.filters.match import matches
from server.store.filters.tree import ID, TITLE, AllOf, Filter, OneOf
from server.store.fusion import DENSE_WEIGHT, LEXICAL_WEIGHT, fuse
from server.store.passages.outline import Outline
from server.store.records import Document, Info
from server.store.search import CHUNKS_A_HIT, DEEPER, Hit, Query
from server.store.searching.above import Above
from server.store.searching.details import FoundPart, HitDetails
from server.store.searching.found import Found
from server.types import unit

# Chunks that one search asks for at most. Some databases return no more.
MOST_ROWS = 16_384
USUAL_WEIGHTS = (DENSE_WEIGHT, LEXICAL_WEIGHT)


def search(database: VectorDatabase, info: Info, query: Query, words: Sequence[str]) -> Found:
    """Find the best documents of a query, best first. Raises what the database raises.

    words: the terms that the query asks for.
    """
    ranking = _Ranking(database, info, query, words)
    rows = ranking.best(query.depth)
    page = rows[query.options.offset : query.options.offset + query.top_k]
    hits = [_hit(row) for row in page]
    return Found(_detailed(ranking, query, hits), warnings=ranking.warnings)


class _Ranking:
    """The chunks that a query finds. warnings: what could not be searched."""

    def __init__(
        self, database: VectorDatabase, info: Info, query: Query, words: Sequence[str]
    ) -> None:
        self.database, self.info, self.query = database, info, query
        self.vector = None if query.vector is None else unit(query.vector[None])[0]
        self.words = words
        self.warnings: list[str] = []

    def best(self, wanted: int) -> list[FoundRow]:
        """Return the best chunk of each of the `wanted` best documents."""
        depth = min(wanted * (CHUNKS_A_HIT if self.info.in_parts else 1), MOST_ROWS)
        while True:
            rows = self.rows(depth, self.query.filter)
            best: dict[str, FoundRow] = {}
            for row in rows:
                best.setdefault(row.chunk.id, row)
            if len(best) >= wanted or len(rows) < depth or depth == MOST_ROWS:
                return list(best.values())[:wanted]
            depth = min(depth * DEEPER, MOST_ROWS)

    def rows(self, depth: int, filter: Filter | None) -> list[FoundRow]:
        """Return the `depth` best chunks that a filter keeps, best first, those below the least score left out."""
        query = self.query
        if query.mode == "dense":
            found = self._nearest(depth, filter)
        elif query.mode == "lexical":
            found = self._by_words(depth, filter)
        else:
            found = self._by_both(depth, filter)
        for row in found:
            _confirm(self.info, filter, row)
        if query.min_score is not None:
            # subtle: fewer rows than asked for end the deepening, and no deeper row has a greater score.
            found = [row for row in found if row.score >= query.min_score]
        return found

    def _nearest(self, depth: int, filter: Filter | None) -> list[FoundRow]:
        assert self.vector is not None
        return self.database.nearest(self.info, self.vector, depth, filter)

    def _by_words(self, depth: int, filter: Filter | None) -> list[FoundRow]:
        # A query of signs alone asks for nothing.
        return self.database.by_words(self.info, self.words, depth, filter) if self.words else []

    def _by_both(self, depth: int, filter: Filter | None) -> list[FoundRow]:
        """Return the chunks by reciprocal ranks, or by meaning alone where words cannot be searched."""
        if not self.words:
            return self._nearest(depth, filter)
        try:
            if self.query.weights != USUAL_WEIGHTS:
                return self._weighted(depth, filter)
            assert self.vector is not None
            return self.database.by_both(self.info, self.vector, self.words, depth, filter)
        except (DatabaseAway, DatabaseBusy, DatabaseRefused) as error:
            # Raises again where meaning cannot be searched either.
            found = self._nearest(depth, filter)
            warning = (
                f"words could not be searched, so these hits are by meaning alone: {error.message}"
            )
            self.warnings = [warning]
            return found

    def _weighted(self, depth: int, filter: Filter | None) -> list[FoundRow]:
        dense, lexical = self._nearest(depth, filter), self._by_words(depth, filter)
        known = {row.label: row for row in (*dense, *lexical)}
        rankings = [
            np.array([row.label for row in rows], dtype=np.int64) for rows in (dense, lexical)
        ]
        labels, scores = fuse(rankings, self.query.weights)
        ranked = zip(labels.tolist(), scores.tolist(), strict=True)
        return [replace(known[label], score=score) for label, score in ranked][:depth]

    def parts(self, ids: Sequence[str], number: int) -> dict[str, list[FoundRow]]:
        """Return the best chunks of each of these documents, `number` at most."""
        only = OneOf(ID, tuple(ids))
        filter = only if self.query.filter is None else AllOf((self.query.filter, only))
        depth = min(CHUNKS_A_HIT * number * len(ids), MOST_ROWS)
        while True:
            rows = self.rows(depth, filter)
            found: dict[str, list[FoundRow]] = {id: [] for id in ids}
            for row in rows:
                if len(found[row.chunk.id]) < number:
                    found[row.chunk.id].append(row)
            full = all(len(each) == number for each in found.values())
            if full or len(rows) < depth or depth == MOST_ROWS:
                return found
            depth = min(depth * DEEPER, MOST_ROWS)


def _confirm(info: Info, filter: Filter | None, row: FoundRow) -> None:
    """Raise DatabaseRefused where a filter does not keep a chunk that was found."""
    beside = {ID: row.chunk.id, TITLE: row.chunk.title}
    if filter is not None and matches(filter, row.chunk.metadata, beside) is False:
        raise DatabaseRefused(
            f"the search in {info.name!r} returned document {ascii(row.chunk.id)}, which the filter leaves out"
        )


def _hit(row: FoundRow) -> Hit:
    chunk = row.chunk
    return Hit(
        chunk.id, row.score, chunk.text, chunk.title, chunk.metadata, chunk.span, chunk.whole
    )


def _detailed(ranking: _Ranking, query: Query, hits: list[Hit]) -> list[Hit]:
    """Return hits with what else the query asked for of them."""
    options, ids = query.options, [hit.id for hit in hits]
    if not (options.parts or options.document or options.above) or not hits:
        return hits
    parts = ranking.parts(ids, options.parts) if options.parts else {}
    inside = {hit.id for hit in hits if hit.span.begin}
    inside |= {id for id, rows in parts.items() if any(row.chunk.span.begin for row in rows)}
    needed = ids if options.document else [id for id in ids if options.above and id in inside]
    documents = ranking.database.documents(ranking.info, needed) if needed else {}
    outlines = {id: Outline.of(documents[id].text) for id in inside & documents.keys()}
    return [replace(hit, details=_details(query, hit, parts, documents, outlines)) for hit in hits]


def _details(
    query: Query,
    hit: Hit,
    parts: Mapping[str, Sequence[FoundRow]],
    documents: Mapping[str, Document],
    outlines: Mapping[str, Outline],
) -> HitDetails:
    def above(begin: int) -> Above | None:
        if not query.options.above:
            return None
        if not begin or hit.id not in outlines:
            return Above()
        outline = outlines[hit.id]
        return Above(tuple(outline.path(begin, hit.title)), outline.context(begin, hit.title))

    shown = [
        FoundPart(row.chunk.text, row.score, row.chunk.span, above(row.chunk.span.begin))
        for row in parts.get(hit.id, ())
    ]
    whole = documents.get(hit.id)
    return HitDetails(
        parts=shown if query.options.parts else None,
        document=None if whole is None or not query.options.document else whole.text,
        above=above(hit.span.begin),
    )
