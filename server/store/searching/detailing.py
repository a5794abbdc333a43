"""Adds to hits what else a query asked for: explanations, parts, whole documents, vectors."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from server.store.fusion import RANKS, blend, fuse
from server.store.records import titled
from server.store.search import Hit, Query, Ranked, Search
from server.store.searching import rows
from server.store.searching.above import Above, Place, above
from server.store.searching.details import Explanation, FoundPart, HitDetails
from server.store.sqlite.read_limit import spend, within_limit
from server.store.words.explanation import explain_text
from server.types import Labels, Vectors


def detailed(
    search: Search, query: Query, page: Sequence[Ranked], hits: Sequence[Hit]
) -> list[Hit]:
    """Return the hits of a page with their details; hits: of the page's labels, in its order."""
    options = query.options
    if not options.asks_for_details or not hits:
        return list(hits)
    labels = [label for label, _ in page]
    vectors = _vectors(search, labels) if options.vectors else {}
    ids = list(dict.fromkeys(hit.id for hit in hits))
    texts = _texts(search, ids) if options.document else {}
    ranks = None
    if query.mode == "hybrid" and query.fusion == "rrf" and (options.explain or options.parts):
        ranks = _Ranks(search, query)
    parts = _parts(search, query, ids, frozenset(labels), ranks) if options.parts else {}
    higher = _above(search, query, hits, parts)
    explained = _explained(search, query, labels, hits, ranks, higher) if options.explain else {}
    asked = None
    if options.asked and query.words is not None:
        asked = search.collection.documents.asked(query.words)
    return [
        replace(
            hit,
            details=HitDetails(
                explained.get(label),
                _with_above(hit.id, parts[hit.id], higher) if hit.id in parts else None,
                texts.get(hit.id),
                vectors.get(label),
                higher.get((hit.id, hit.span.begin)) if options.above else None,
                asked,
            ),
        )
        for label, hit in zip(labels, hits, strict=True)
    ]


def _above(
    search: Search,
    query: Query,
    hits: Sequence[Hit],
    parts: Mapping[str, Sequence[FoundPart]],
) -> dict[Place, Above]:
    """Return what stands above hits and parts, where it is asked for or explains a score."""
    options = query.options
    places = list[Place]()
    if options.above or (options.explain and query.mode != "dense"):
        places += [(hit.id, hit.span.begin) for hit in hits]
    if options.above:
        places += [(id, part.span.begin) for id, some in parts.items() for part in some]
    return above(search.collection.documents, places)


def _with_above(
    id: str, parts: Sequence[FoundPart], higher: Mapping[Place, Above]
) -> list[FoundPart]:
    return [replace(part, above=higher.get((id, part.span.begin))) for part in parts]


def _vectors(search: Search, labels: Sequence[int]) -> dict[int, Vectors]:
    found = search.collection.documents.vectors(np.array(labels, dtype=np.int64))
    spend(found.nbytes)
    return dict(zip(labels, found, strict=True))


def _texts(search: Search, ids: Sequence[str]) -> dict[str, str]:
    texts = {}
    for id in ids:
        # One at a time: a page of long documents may not fit into memory.
        texts[id] = search.collection.documents.get([id])[id].text
        spend(len(texts[id]))
    return texts


class _Ranks:
    """The places of chunks in the two searches whose reciprocal ranks are added."""

    def __init__(self, search: Search, query: Query) -> None:
        rankings = search.nearest(query, RANKS), search.matches(query).labels[:RANKS]
        labels, scores = fuse(rankings, query.weights)
        self.scores = dict(zip(labels.tolist(), scores.tolist(), strict=True))
        self._places = [
            {label: place for place, label in enumerate(some.tolist(), start=1)}
            for some in rankings
        ]

    def of(self, label: int) -> tuple[int | None, int | None]:
        """Return the places of a chunk, from 1 on; None where a search did not find it."""
        return self._places[0].get(label), self._places[1].get(label)


def _explained(
    search: Search,
    query: Query,
    labels: Sequence[int],
    hits: Sequence[Hit],
    ranks: _Ranks | None,
    higher: Mapping[Place, Above],
) -> dict[int, Explanation]:
    cosines: Mapping[int, float] = {}
    if query.mode != "lexical":
        ascending = np.unique(np.array(labels, dtype=np.int64))
        found = search.cosines(query, ascending)
        cosines = dict(zip(ascending.tolist(), found.tolist(), strict=True))
    explained = {}
    # A text without chunks may be long.
    for label, hit in within_limit(zip(labels, hits, strict=True)):
        words = None
        if query.mode != "dense":
            context = higher[hit.id, hit.span.begin].context
            text = titled(hit.title, context + hit.text)
            words = explain_text(search.matches(query), label, text)
        places = None if ranks is None else ranks.of(label)
        explained[label] = Explanation(cosines.get(label), words, places)
    return explained


def _parts(
    search: Search, query: Query, ids: Sequence[str], shown: Set[int], ranks: _Ranks | None
) -> dict[str, list[FoundPart]]:
    """Return the best chunks of each document, best first; shown: the hits, which come before their equals."""
    of_documents = rows.labels(search.collection.documents, ids)
    every = np.unique(np.array([n for some in of_documents.values() for n in some], dtype=np.int64))
    if query.mode == "hybrid":
        every = every[search.matches(query).allows(every)]
    scores = _scores(search, query, every, ranks)
    best: dict[str, list[Ranked]] = {}
    for id, labels in of_documents.items():
        known = [(label, scores[label]) for label in labels if label in scores]
        best[id] = sorted(known, key=lambda each: (-each[1], each[0] not in shown, each[0]))
        del best[id][query.options.parts :]
    chunks = search.chunks([label for some in best.values() for label, _ in some])
    return {
        id: [FoundPart(chunks[label].text, score, chunks[label].span) for label, score in some]
        for id, some in best.items()
    }


def _scores(search: Search, query: Query, labels: Labels, ranks: _Ranks | None) -> dict[int, float]:
    """Return the scores of ascending labels as the query's mode gives them; some may have none."""
    if ranks is not None:
        return {label: ranks.scores.get(label, 0.0) for label in labels.tolist()}
    if query.mode == "lexical":
        matches = search.matches(query)
        scores = matches.shares_of(labels) if query.options.shares else matches.scores_of(labels)
        there = scores > 0
    else:
        scores = search.cosines(query, labels)
        there = np.isfinite(scores)
        if query.mode == "hybrid":
            shares = search.matches(query).shares_of(labels)
            scores = blend(scores, shares, query.weights)
    rounded = scores.astype(np.float32)
    return dict(zip(labels[there].tolist(), rounded[there].tolist(), strict=True))
