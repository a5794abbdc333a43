"""A search over several collections: their hits on one scale, the best of all first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from server.collections.external.kinds import Readable
from server.errors import InvalidRequest
from server.store.filters.tree import Filter
from server.store.records import Info
from server.store.search import Hit, Query
from server.store.searching.details import HitDetails
from server.types import Vectors


class SeveralCollections:
    """Collections that are searched together; each search of one of them is of one moment of it.

    Cosines of one model are on one scale, and so is the part of the attainable BM25. BM25 itself is not: it
    depends on how many documents a collection has. So the score by words is that part here.
    """

    def __init__(self, collections: Mapping[str, Readable], *, needs_one_model: bool) -> None:
        """Take collections by name; raises InvalidRequest where their vectors cannot be compared."""
        self._collections = collections
        self._first = next(iter(collections.values()))
        self._needs_one_model = needs_one_model
        self.check_models()

    def check_models(self) -> None:
        """Raise InvalidRequest where their vectors cannot be compared."""
        if not self._needs_one_model:
            return
        first = self._first.info
        for name, each in self._collections.items():
            if each.info.fingerprint != first.fingerprint:
                raise InvalidRequest(
                    f"collections {self._first.name!r} and {name!r} hold vectors of different models"
                    f" ({first.fingerprint} and {each.info.fingerprint}), whose scores cannot be compared;"
                    ' search them apart, or with mode "lexical", or reindex one of them',
                    param="collections",
                )

    @property
    def info(self) -> Info:
        """The description of the first, whose model is that of all."""
        return self._first.info

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Embed queries: float32 (B, D)."""
        # One may have been reindexed with another model.
        self.check_models()
        return await self._first.vectors_of(texts)

    def check_room(self, queries: Sequence[Query]) -> None:
        """Raise Overloaded if a search would be refused now."""
        for each in self._collections.values():
            each.check_room(queries)

    async def search(self, queries: Sequence[Query], space: str | None = None) -> list[list[Hit]]:
        """Find the best documents of each query in all collections; space: as for each of them."""
        deep = [_deep(query) for query in queries]
        found = [await each.search(deep, space) for each in self._collections.values()]
        return [
            _merged(query, dict(zip(self._collections, of_query, strict=True)))
            for query, of_query in zip(queries, zip(*found, strict=True), strict=True)
        ]

    async def warnings(self, filter: Filter | None) -> list[str]:
        """Return which conditions of a filter no stored value can meet, for each collection."""
        found = {name: await each.warnings(filter) for name, each in self._collections.items()}
        return [f"{name}: {text}" for name, texts in found.items() for text in texts]


def _deep(query: Query) -> Query:
    """Return the query for one of the collections, which may hold all hits of the page."""
    options = replace(query.options, offset=0, shares=True)
    return replace(query, top_k=query.options.offset + query.top_k, options=options)


def _merged(query: Query, found: Mapping[str, Sequence[Hit]]) -> list[Hit]:
    every = [(name, hit) for name, hits in found.items() for hit in hits]
    # Equal hits keep the order of the collections in the request.
    every.sort(key=lambda each: -each[1].score)
    page = every[query.options.offset : query.options.offset + query.top_k]
    return [
        replace(hit, details=replace(hit.details or HitDetails(), collection=name))
        for name, hit in page
    ]
