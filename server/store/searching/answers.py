"""Answers queries with options: pages, groups, an order, parts, vectors, counts.

How this works. `Search` ranks documents as it does for plain queries, to the depth that the options need.
What follows works on that ranking, a list of a label and a score for each document: it leaves documents
out, puts others first, and cuts the page. Texts are read of the hits that are shown and of no others, but
where an order or groups need the metadata of all candidates. Everything is read in one snapshot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from server.store import search as plain_search
from server.store.collection import Collection
from server.store.filters.tree import Filter
from server.store.records import Chunk
from server.store.search import Hit, Query, Ranked, Search
from server.store.searching import rows
from server.store.searching.detailing import detailed
from server.store.searching.diversity import diverse
from server.store.searching.facets import facets
from server.store.searching.found import Facet, Found, Value
from server.store.searching.grouping import grouped
from server.store.searching.likeness import direction, missing
from server.store.searching.options import PLAIN, Grouping
from server.store.searching.ordering import listed, put_in_order
from server.types import Labels


def search(collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
    """Find the best documents of each query; the answer to a query with options is a `Found`."""
    if all(query.options is PLAIN for query in queries):
        return plain_search.search(collection, queries)
    plain = [query for query in queries if query.options is PLAIN]
    rich = [query for query in queries if query.options is not PLAIN]
    with collection.reading() as index:
        running = Search(collection, index, None)
        of_plain = iter(running.run(plain) if plain else [])
        of_rich = iter(_Answers(running).found(rich))
        return [next(of_plain if query.options is PLAIN else of_rich) for query in queries]


def is_listing(query: Query) -> bool:
    """Return whether a query only lists documents in an order."""
    no_vector = query.vector is None and query.options.like is None
    return query.options.sort is not None and no_vector and query.words is None


def empty_answer(query: Query) -> list[Hit]:
    """Return the answer of a collection that holds nothing; raises DocumentNotFound."""
    if query.options is PLAIN:
        return []
    if query.options.like is not None:
        raise missing(query.options.like.all[0])
    groups = None if query.options.group is None else ()
    return Found(groups=groups, facets=[Facet(key, (), 0, True) for key in query.options.facets])


class _Answers:
    """The answers of one search, inside `Collection.reading`."""

    def __init__(self, running: Search) -> None:
        self._search = running
        self._documents = running.collection.documents

    def found(self, queries: Sequence[Query]) -> list[Found]:
        ready = [self._with_vector(query) for query in queries]
        ranked = [query for query in ready if not is_listing(query)]
        deep = [replace(query, top_k=query.depth) for query in ranked]
        rankings = iter(self._search.rankings(deep) if deep else [])
        return [
            self._listed(query) if is_listing(query) else self._of(query, next(rankings))
            for query in ready
        ]

    def _with_vector(self, query: Query) -> Query:
        like = query.options.like
        if like is None or query.mode == "lexical":
            return query
        return replace(query, vector=direction(self._documents, like))

    def _of(self, query: Query, ranking: list[Ranked]) -> Found:
        options = query.options
        if options.like is not None:
            ranking = self._without(ranking, options.like.all)
            ranking = ranking[: query.depth - len(options.like.all)]
        if options.group is not None:
            return self._grouped(query, ranking, options.group)
        if options.sort is not None:
            ranking, chunks = self._read(ranking)
            ranking = put_in_order(ranking, chunks, options.sort.keys)
        if options.diversity is not None:
            ranking = self._diverse(query, ranking)
        end = options.offset + query.top_k
        page = ranking[options.offset : end]
        return self._shown(query, page, has_more=len(ranking) > end)

    def _shown(
        self,
        query: Query,
        page: Sequence[Ranked],
        *,
        has_more: bool = False,
        groups: Sequence[tuple[Value, int]] | None = None,
    ) -> Found:
        """Read the hits of a page, and what else was asked for of them."""
        page, chunks = self._read(page)
        hits = self._search.hits(query, page, chunks)
        return Found(
            detailed(self._search, query, page, hits),
            self._documents.revision(),
            has_more,
            groups,
            self._facets(query),
        )

    def _read(self, ranking: Sequence[Ranked]) -> tuple[list[Ranked], Mapping[int, Chunk]]:
        """Return the part of a ranking whose chunks are there, and the chunks."""
        chunks = self._search.chunks([label for label, _ in ranking])
        return [each for each in ranking if each[0] in chunks], chunks

    def _facets(self, query: Query) -> list[Facet]:
        keys = query.options.facets
        if not keys:
            return []
        return facets(self._search.collection, keys, self._countable(query))

    def _countable(self, query: Query) -> Filter | Labels | None:
        """Return the chunks whose documents are counted, or the filter that keeps them."""
        if query.mode == "dense":
            return query.filter
        matches = self._search.matches(query)
        if query.mode == "lexical":
            return np.sort(matches.labels)
        within = self._search.within(query) if matches.is_restricted else None
        return query.filter if within is None else within.labels

    def _without(self, ranking: list[Ranked], ids: Sequence[str]) -> list[Ranked]:
        left_out = {label for some in rows.labels(self._documents, ids).values() for label in some}
        return [each for each in ranking if each[0] not in left_out]

    def _listed(self, query: Query) -> Found:
        """Return documents that the filter keeps in the order of their metadata; no hit has a score."""
        options = query.options
        assert options.sort is not None
        n_wanted = query.top_k + options.look_ahead
        labels = listed(self._documents, options.sort.keys, query.filter, options.offset, n_wanted)
        page = [(label, float("nan")) for label in labels[: query.top_k]]
        return self._shown(query, page, has_more=len(labels) > query.top_k)

    def _grouped(self, query: Query, ranking: list[Ranked], group: Grouping) -> Found:
        ranking, chunks = self._read(ranking)
        found = grouped(ranking, chunks, group, query.top_k)
        page = [each for _, some in found for each in some]
        return self._shown(query, page, groups=[(value, len(some)) for value, some in found])

    def _diverse(self, query: Query, ranking: list[Ranked]) -> list[Ranked]:
        assert query.options.diversity is not None
        if not ranking:
            return ranking
        scores = np.array([score for _, score in ranking])
        if query.mode == "lexical" or query.fusion == "rrf":
            # BM25 and reciprocal ranks are not on the scale of a cosine.
            scores = scores / max(float(scores.max()), 1e-9)
        vectors = self._documents.vectors(np.array([label for label, _ in ranking], dtype=np.int64))
        n_wanted = query.options.offset + query.top_k + query.options.look_ahead
        places = diverse(scores, vectors, query.options.diversity.relevance, n_wanted)
        return [ranking[place] for place in places]
