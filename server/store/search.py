"""Answers queries from a collection: by meaning, by words, or by both, with filters.

Several queries at once cost less than one after the other: the index reads its codes once for all,
and one statement fetches the rows of all hits. All that they read is of one moment of the collection.

How "hybrid" blends. The score of a chunk is a function of the query and the chunk (`fusion.blend`): a
chunk that only words found gets its cosine from the index, and one that only its vector found gets its
BM25. Candidates are the best of either search to some depth. A chunk that is none of them has at most
the cosine and the BM25 where both lists end, so a candidate that scores at least their blend is settled
(Fagin's threshold algorithm). The answer is what is settled at the first depth, best first, then what
becomes settled at four times that depth, and so on. So the ten best hits are the first ten of the
thousand best, with the same scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from server.store.collection import Collection
from server.store.filters.tree import TITLE, Filter
from server.store.fusion import (
    DENSE_WEIGHT,
    DIGITS,
    LEXICAL_WEIGHT,
    RANKS,
    Scores,
    blend,
    fuse,
)
from server.store.records import Chunk, Span
from server.store.searching.details import HitDetails
from server.store.searching.nearest import Candidates, nearest, scored
from server.store.searching.options import PLAIN, Options
from server.store.selection import Selection
from server.store.vector_index import VectorIndex
from server.store.words.matches import Matches
from server.types import Labels, Vectors

Mode = Literal["dense", "lexical", "hybrid"]
Fusion = Literal["blend", "rrf"]
# One document's chunks may fill the whole list. So this many candidates for each hit are ranked first,
# and DEEPER times as many whenever that was not enough.
CHUNKS_A_HIT = 3
DEEPER = 4
# Candidates of either search in "hybrid", first and when all of them count as settled. On seven tasks
# with 848 to 5,000 documents the ten best hits of all 13,000 queries were settled at once, the hundred
# best at four times the depth (2026-11-29).
BLEND_DEPTH, SETTLED_DEPTH = 100, 25_600
# Labels whose cosines an index computes at once; a larger number could make it choose by codes.
COSINES_AT_ONCE = 2048
# A plain search for so few hits, among so few chunks, takes less than a millisecond, and a thread up to half
# of one. 2,000 laws, 16 clients with ready vectors, 2026-11-29: without this the server answered 0.65 times
# as many searches.
QUICK_HITS, QUICK_CHUNKS = 100, 100_000


@dataclass(frozen=True, slots=True)
class Query:
    """A query to a collection.

    vector: float32 (D,), needed unless mode is "lexical". words: needed unless it is "dense".
    min_score: hits below it are left out; it means a cosine, BM25, or the fused score.
    weights: of meaning and of words, for "hybrid". fusion: how these two become one. options: what else is
    asked for, which `searching.answers` answers.
    """

    mode: Mode
    top_k: int
    vector: Vectors | None = None
    words: str | None = None
    min_score: float | None = None
    filter: Filter | None = None
    weights: tuple[float, float] = (DENSE_WEIGHT, LEXICAL_WEIGHT)
    fusion: Fusion = "blend"
    options: Options = PLAIN

    @property
    def depth(self) -> int:
        """How many of the best documents must be known."""
        return self.options.depth(self.top_k)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found.

    score: cosine, BM25, or the fused score, by the query's mode; higher is better. text: the chunk
    that matched, which is the characters `span` of the document. whole: it is the whole document.
    rerank_score: relevance from 0 to 1, by a model that read the query with the text; None before that.
    details: what else the query asked for of a hit; None where that is nothing.
    """

    id: str
    score: float
    text: str
    title: str | None
    metadata: Mapping[str, object]
    span: Span
    whole: bool
    rerank_score: float | None = None
    details: HitDetails | None = None

    @property
    def n_characters(self) -> int:
        """How many characters it takes in a reply, about."""
        more = 0 if self.details is None else self.details.n_characters
        return len(self.text) + len(self.title or "") + more


# A chunk's label and its score.
Ranked = tuple[int, float]


@dataclass(slots=True)
class _Answer:
    """What has been found for one query.

    depth: of candidates, the next time. seen: labels that were candidates. best: of each document the
    best chunk, (label, score), by the document's number; best first. hits: the answer, where the cache had
    it all.
    """

    query: Query
    depth: int
    hits: list[Hit] | None = None
    seen: set[int] = field(default_factory=set)
    best: dict[int, Ranked] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return len(self.best) >= self.query.top_k


def at_once(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]] | None:
    """Return what `search` does if that takes less time than to wait for a thread; else None."""
    index = collection.settled_index
    if (
        index is None
        or len(queries) != 1
        or not is_plain(queries[0])
        or queries[0].top_k > QUICK_HITS
    ):
        return None
    if len(index) > QUICK_CHUNKS:
        return None
    depth = _early_depth(collection, queries[0])
    (early,) = scored(index, _rows(queries), depth + 1, None)
    if early.cuts_equals(depth):
        return None
    hits = _remembered(collection, early.first(depth), queries[0])
    return None if hits is None else [hits]


def is_plain(query: Query) -> bool:
    """Return whether a query does little else than read its hits."""
    return query.mode == "dense" and query.filter is None and query.options is PLAIN


def _early(collection: Collection, index: VectorIndex, queries: Sequence[Query]) -> Candidates:
    """Return the candidates of a plain search."""
    return nearest(index, _rows(queries), _early_depth(collection, queries[0]), None)[0]


def _early_depth(collection: Collection, query: Query) -> int:
    collection.asked.add(_vector(query))
    return _depth(query, chunked=collection.info.in_parts)


def search(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
    """Find the best documents of each query, best first; fewer than top_k where there are fewer."""
    index, early = collection.settled_index, None
    if len(queries) == 1 and is_plain(queries[0]) and index is not None:
        # Such a search needs no database where its hits are in the cache.
        early = _early(collection, index, queries)
        if (hits := _remembered(collection, early, queries[0])) is not None:
            return [hits]
    with collection.reading() as current:
        return Search(collection, current, early if current is index else None).run(queries)


@dataclass(slots=True)
class Search:
    """One search, inside `Collection.reading`.

    early: the candidates of the first query, where they are known already. kept, matched, permitted: what
    several queries share, and what deeper rankings need again.
    """

    collection: Collection
    index: VectorIndex
    early: Candidates | None
    kept: dict[str, Selection] = field(default_factory=dict)
    matched: dict[tuple[str, str], Matches] = field(default_factory=dict)
    permitted: dict[tuple[str, str], Selection] = field(default_factory=dict)

    def run(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Return the best documents of each query."""
        answers = self._answers(queries, remember=True)
        rest = [answer for answer in answers if answer.hits is None]
        chunks = self.chunks([label for answer in rest for label, _ in answer.best.values()])
        for answer in rest:
            answer.hits = self.hits(answer.query, list(answer.best.values()), chunks)
        return [answer.hits or [] for answer in answers]

    def rankings(self, queries: Sequence[Query]) -> list[list[Ranked]]:
        """Return the best chunk of each of the best documents with its score, best first, for each query."""
        answers = self._answers(queries, remember=False)
        return [list(answer.best.values())[: answer.query.top_k] for answer in answers]

    def _answers(self, queries: Sequence[Query], *, remember: bool) -> list[_Answer]:
        """Rank documents until there are enough; remember: hits may come from the cache alone."""
        chunked = self.collection.info.in_parts
        answers = [_Answer(query, _depth(query, chunked=chunked)) for query in queries]
        waiting = answers
        while waiting:
            again = []
            for answer, ranking in zip(waiting, self._rank(waiting), strict=True):
                if remember and answer.query.mode == "dense" and answer.query.filter is None:
                    answer.hits = _remembered(self.collection, ranking, answer.query)
                if answer.hits is not None:
                    continue
                self._take(answer, ranking, chunked=chunked)
                if not answer.full and not ranking.complete:
                    answer.depth *= DEEPER
                    again.append(answer)
            waiting = again
        return answers

    def hits(
        self, query: Query, ranked: Sequence[Ranked], chunks: Mapping[int, Chunk]
    ) -> list[Hit]:
        """Return the hits of a ranking whose chunks have been read."""
        hits = []
        for label, score in ranked:
            if label in chunks:
                hit = _hit(chunks[label], score)
                self._confirm(query.filter, hit)
                hits.append(hit)
        return hits

    def _confirm(self, filter: Filter | None, hit: Hit) -> None:
        self.collection.documents.confirm(filter, hit.id, hit.metadata, {TITLE: hit.title})

    def _take(self, answer: _Answer, ranking: Candidates, *, chunked: bool) -> None:
        """Add the best chunks of documents that are new, until there are enough."""
        if answer.query.mode != "hybrid":
            # A deeper ranking is a better one, if the index is not exact.
            answer.seen.clear()
            answer.best.clear()
        step = CHUNKS_A_HIT * answer.query.top_k
        for begin in range(0, len(ranking.labels), step):
            some = slice(begin, begin + step)
            labels, scores = ranking.labels[some], ranking.scores[some]
            owner = self.collection.documents.owners(labels) if chunked else {}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
                if label not in answer.seen:
                    answer.seen.add(label)
                    answer.best.setdefault(owner.get(label, -label), (label, score))
                if answer.full:
                    return

    def chunks(self, labels: Sequence[int]) -> Mapping[int, Chunk]:
        """Read chunks, of which the cache may have some."""
        cache = self.collection.hits
        known = cache.known(labels)
        unknown = [label for label in dict.fromkeys(labels) if label not in known]
        if unknown:
            rows = self.collection.documents.by_labels(np.array(unknown, dtype=np.int64))
            cache.keep(rows)
            known |= rows
        return known

    def _rank(self, answers: Sequence[_Answer]) -> list[Candidates]:
        """Return candidates of each query, to the depth of its answer."""
        dense = self._dense(answers)
        rankings = []
        for place, answer in enumerate(answers):
            query = answer.query
            if query.mode == "dense":
                ranking = dense[place]
            elif query.mode == "lexical":
                matches = self.matches(query)
                scores = matches.scores
                if query.options.shares:
                    scores = matches.shares.round(DIGITS).astype(np.float32)
                ranking = Candidates(matches.labels, scores, True)
            elif query.fusion == "rrf":
                ranking = self._fused(answer, dense[place])
            else:
                ranking = self._blended(answer, dense[place])
            rankings.append(ranking.at_least(query.min_score))
        return rankings

    def _dense(self, answers: Sequence[_Answer]) -> dict[int, Candidates]:
        """Search by vectors: candidates by place in `answers`, with one call for each selection and depth."""
        if self.early is not None:
            early, self.early = self.early, None
            return {0: early}
        groups: dict[tuple[Selection | None, int], list[int]] = {}
        for place, answer in enumerate(answers):
            if answer.query.mode != "lexical":
                groups.setdefault((self.within(answer.query), answer.depth), []).append(place)
        found: dict[int, Candidates] = {}
        for (within, depth), places in groups.items():
            queries = [answers[place].query for place in places]
            for query in queries:
                self.collection.asked.add(_vector(query))
            candidates = nearest(self.index, _rows(queries), depth, within)
            found.update(zip(places, candidates, strict=True))
        return found

    def _blended(self, answer: _Answer, dense: Candidates) -> Candidates:
        """Return the candidates that are settled at this depth; see the module's docstring."""
        query, depth, matches = answer.query, answer.depth, self.matches(answer.query)
        words = matches.labels[:depth]
        labels = np.union1d(dense.labels, words)
        cosines = self.cosines(query, labels, dense)
        known = np.isfinite(cosines)
        labels, cosines = labels[known], cosines[known]
        scores = blend(cosines, matches.shares_of(labels), query.weights)
        bound = -np.inf
        every = dense.complete
        if not every and depth < SETTLED_DEPTH:
            last = float(matches.shares[depth]) if len(matches.labels) > depth else 0.0
            bound = float(blend(dense.scores[-1:].astype(np.float64), last, query.weights)[0])
        settled = scores >= bound
        labels, scores = labels[settled], scores[settled]
        order = np.lexsort((labels, -scores))
        complete = every or (query.min_score is not None and bound < query.min_score)
        return Candidates(labels[order], scores[order].astype(np.float32), complete)

    def cosines(self, query: Query, labels: Labels, dense: Candidates | None = None) -> Scores:
        """Return the cosines of ascending labels: float64 (K,), NaN where the index has no vector.

        dense: some of these labels, whose cosines are known.
        """
        cosines = np.full(len(labels), np.nan)
        if dense is not None:
            cosines[np.searchsorted(labels, dense.labels)] = dense.scores
        missing = labels[np.isnan(cosines)]
        for begin in range(0, len(missing), COSINES_AT_ONCE):
            some = missing[begin : begin + COSINES_AT_ONCE]
            (found,) = scored(self.index, _rows([query]), len(some), Selection.of_labels(some))
            cosines[np.searchsorted(labels, found.labels)] = found.scores
        return cosines

    def nearest(self, query: Query, depth: int) -> Labels:
        """Return the labels of the nearest vectors that may be hits, best first."""
        (found,) = nearest(self.index, _rows([query]), depth, self.within(query))
        return found.labels

    def _fused(self, answer: _Answer, dense: Candidates) -> Candidates:
        """Return the candidates by their ranks; what has none that counts comes last, with a score of 0."""
        words = self.matches(answer.query).labels[: answer.depth]
        labels, scores = fuse((dense.labels[:RANKS], words), answer.query.weights)
        rest = np.setdiff1d(dense.labels[RANKS:], labels)
        return Candidates(
            np.concatenate((labels, rest)),
            np.concatenate((scores, np.zeros(len(rest), dtype=np.float32))),
            dense.complete,
        )

    def matches(self, query: Query) -> Matches:
        """Return the chunks that the query's words find."""
        if (key := _words_key(query)) not in self.matched:
            self.matched[key] = self.collection.documents.words(
                key[0], len(self.index), self._kept(query.filter)
            )
        return self.matched[key]

    def within(self, query: Query) -> Selection | None:
        """Return the labels that a search by vectors may find, None for all.

        The filter keeps them; in "hybrid", the phrases and exclusions of the words allow them too.
        """
        kept = self._kept(query.filter)
        if query.mode != "hybrid" or not (matches := self.matches(query)).is_restricted:
            return kept
        if (key := _words_key(query)) not in self.permitted:
            if matches.is_strict:
                labels = np.sort(matches.labels)
            else:
                every = np.sort(self.index.labels) if kept is None else kept.labels
                labels = np.setdiff1d(every, matches.excluded, assume_unique=True)
            self.permitted[key] = Selection.of_labels(labels)
        return self.permitted[key]

    def _kept(self, filter: Filter | None) -> Selection | None:
        """Return the labels that a filter keeps, None without one."""
        if filter is None:
            return None
        key = _key(filter)
        if key not in self.kept:
            self.kept[key] = self.collection.selection(filter)
        return self.kept[key]


def _depth(query: Query, *, chunked: bool) -> int:
    if query.mode == "hybrid":
        return RANKS if query.fusion == "rrf" else BLEND_DEPTH
    return query.top_k * (CHUNKS_A_HIT if chunked else 1)


def _remembered(collection: Collection, ranking: Candidates, query: Query) -> list[Hit] | None:
    """Return the hits of a ranking where the cache has them all, else None."""
    ranking = ranking.at_least(query.min_score)
    labels = ranking.labels.tolist()
    chunks = collection.hits.known(labels)
    hits: dict[str, Hit] = {}
    for label, score in zip(labels, ranking.scores.tolist(), strict=True):
        if label not in chunks:
            return None
        hits.setdefault(chunks[label].id, _hit(chunks[label], score))
        if len(hits) == query.top_k:
            return list(hits.values())
    return list(hits.values()) if ranking.complete else None


def _rows(queries: Sequence[Query]) -> Vectors:
    return np.stack([_vector(query) for query in queries])


def _vector(query: Query) -> Vectors:
    assert query.vector is not None
    return query.vector


def _key(filter: Filter | None) -> str:
    # subtle: equal trees may differ in 1 and True; their text does not.
    return "" if filter is None else repr(filter)


def _words_key(query: Query) -> tuple[str, str]:
    assert query.words is not None
    return query.words, _key(query.filter)


def _hit(chunk: Chunk, score: float) -> Hit:
    return Hit(chunk.id, score, chunk.text, chunk.title, chunk.metadata, chunk.span, chunk.whole)
