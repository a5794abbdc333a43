"""Answers queries from a collection: by meaning, by words, or by both, with filters.

Several queries at once cost less than one after the other: the index reads its codes once for all,
and one statement fetches the rows of all hits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from server.store import Labels
from server.store.collection import Collection, View
from server.store.filter_tree import Filter
from server.store.fusion import CANDIDATES, DENSE_WEIGHT, LEXICAL_WEIGHT, Ranking, blend, fuse
from server.store.records import Chunk, Span
from server.types import Vectors

Mode = Literal["dense", "lexical", "hybrid"]
Fusion = Literal["blend", "rrf"]
# One document's chunks may fill the whole list. So this many candidates for each hit are ranked first,
# and four times as many whenever that was not enough.
CHUNKS_A_HIT = 3


@dataclass(frozen=True, slots=True)
class Query:
    """A query to a collection.

    vector: float32 (D,), needed unless mode is "lexical". words: needed unless it is "dense".
    min_score: hits below it are left out; it means a cosine, BM25, or the fused score.
    weights: of meaning and of words, for "hybrid". fusion: how these two become one.
    """

    mode: Mode
    top_k: int
    vector: Vectors | None = None
    words: str | None = None
    min_score: float | None = None
    filter: Filter | None = None
    weights: tuple[float, float] = (DENSE_WEIGHT, LEXICAL_WEIGHT)
    fusion: Fusion = "blend"


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found.

    score: cosine, BM25, or the fused score, by the query's mode; higher is better. text: the chunk
    that matched, which is the characters `span` of the document. whole: it is the whole document.
    """

    id: str
    score: float
    text: str
    title: str | None
    metadata: Mapping[str, object]
    span: Span
    whole: bool


@dataclass(slots=True)
class _Candidates:
    """Candidates of one query, best first. complete: there are no more than these."""

    labels: Labels
    scores: Vectors
    complete: bool


@dataclass(slots=True)
class _Search:
    """One pass over one view; filters that several queries share are evaluated once."""

    view: View
    kept: dict[str, Labels] = field(default_factory=dict)

    def rank(self, queries: Sequence[Query], depths: Sequence[int]) -> list[_Candidates]:
        """Return the candidates of each query, at most as many as `depths` says."""
        dense = self._dense(queries, depths)
        rankings = []
        for place, (query, depth) in enumerate(zip(queries, depths, strict=True)):
            if query.mode == "dense":
                ranking = dense[place]
            else:
                assert query.words is not None
                documents = self.view.collection.documents
                labels, scores = documents.words(query.words, depth, query.filter)
                ranking = _Candidates(labels, scores, len(labels) < depth)
                if query.mode == "hybrid":
                    ranking = _fused(dense[place], ranking, query, depth)
            if query.min_score is not None:
                good = ranking.scores >= query.min_score
                complete = ranking.complete or not good.all()
                ranking = _Candidates(ranking.labels[good], ranking.scores[good], complete)
            rankings.append(ranking)
        return rankings

    def _dense(self, queries: Sequence[Query], depths: Sequence[int]) -> dict[int, _Candidates]:
        """Search by vectors; rankings by place in `queries`, and one call for each filter."""
        groups: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            if query.mode != "lexical":
                groups.setdefault(_key(query.filter), []).append(place)
        found = {}
        for key, places in groups.items():
            depth = max(depths[place] for place in places)
            vectors = np.stack([_vector(queries[place]) for place in places])
            within = self._labels(key, queries[places[0]].filter)
            hits = self.view.index.search(vectors, depth, within)
            for row, place in enumerate(places):
                wanted = slice(0, depths[place])
                labels, scores = hits.labels[row][wanted], hits.scores[row][wanted]
                there = labels >= 0
                found[place] = _Candidates(labels[there], scores[there], not there.all())
        return found

    def _labels(self, key: str, filter: Filter | None) -> Labels | None:
        if filter is None:
            return None
        if key not in self.kept:
            self.kept[key] = self.view.collection.documents.labels(filter)
        return self.kept[key]


def search(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
    """Find the best documents of each query, best first; fewer than top_k where there are fewer."""
    while (found := _attempt(collection, queries)) is None:
        continue
    return found


def _attempt(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]] | None:
    view = collection.view
    searching = _Search(view)
    chunked = collection.info.chunks is not None
    depths = [_depth(query, chunked=chunked) for query in queries]
    waiting = list(range(len(queries)))
    answers: dict[int, list[tuple[int, float]]] = {}
    while waiting:
        rankings = searching.rank([queries[i] for i in waiting], [depths[i] for i in waiting])
        again = []
        for place, ranking in zip(waiting, rankings, strict=True):
            top = _first_chunks(collection, ranking, queries[place].top_k, chunked=chunked)
            if len(top) < queries[place].top_k and not ranking.complete:
                depths[place] *= 4
                again.append(place)
            answers[place] = top
        waiting = again
    labels = [label for top in answers.values() for label, _ in top]
    chunks = view.chunks(list(dict.fromkeys(labels)))
    if chunks is None:
        return None
    for place, query in enumerate(queries):
        for label, _ in answers[place] if query.filter is not None else ():
            if label in chunks:
                chunk = chunks[label]
                collection.documents.confirm(query.filter, chunk.id, chunk.metadata)
    return [
        [_hit(chunks[label], score) for label, score in answers[place] if label in chunks]
        for place in range(len(queries))
    ]


def _depth(query: Query, *, chunked: bool) -> int:
    depth = query.top_k * (CHUNKS_A_HIT if chunked else 1)
    return max(depth, CANDIDATES) if query.mode == "hybrid" else depth


def _first_chunks(
    collection: Collection, ranking: _Candidates, top_k: int, *, chunked: bool
) -> list[tuple[int, float]]:
    """Return the best chunk of each document: (label, score), best first."""
    pairs = list(zip(ranking.labels.tolist(), ranking.scores.tolist(), strict=True))
    if not chunked:
        return pairs[:top_k]
    owner = collection.documents.owners(ranking.labels)
    best: dict[int, tuple[int, float]] = {}
    for label, score in pairs:
        # A label whose row is being deleted stands for itself.
        best.setdefault(owner.get(label, -label), (label, score))
    return list(best.values())[:top_k]


def _fused(dense: _Candidates, lexical: _Candidates, query: Query, depth: int) -> _Candidates:
    top = 2 * depth
    if query.fusion == "rrf":
        labels, scores = fuse((dense.labels, lexical.labels), query.weights, top)
    else:
        # Without any of the words the score is 0; a cosine has no value that means "nothing in common".
        pair = Ranking(dense.labels, dense.scores), Ranking(lexical.labels, lexical.scores, 0.0)
        labels, scores = blend(pair, query.weights, top)
    return _Candidates(labels, scores, dense.complete and lexical.complete)


def _vector(query: Query) -> Vectors:
    assert query.vector is not None
    return query.vector


def _key(filter: Filter | None) -> str:
    # subtle: equal trees may differ in 1 and True; their text does not.
    return "" if filter is None else repr(filter)


def _hit(chunk: Chunk, score: float) -> Hit:
    return Hit(chunk.id, score, chunk.text, chunk.title, chunk.metadata, chunk.span, chunk.whole)
