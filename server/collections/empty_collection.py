"""The default collection before its first write: it answers as an empty one, and has no files."""

from collections.abc import Sequence

from server.collections.chunk_embedding import default_chunks
from server.collections.description import Description
from server.collections.query_cache import QueryCache
from server.inference.engine import Engine
from server.store.filters.tree import Filter
from server.store.records import Document, Info
from server.store.search import Hit, Query
from server.store.searching.answers import empty_answer
from server.store.vector_index import IndexStats
from server.types import Vectors


class EmptyCollection:
    """What a `LiveCollection` answers to reads and deletions where it holds nothing."""

    def __init__(self, name: str, engine: Engine, queries: QueryCache, index: IndexStats) -> None:
        """Take the name, the engine that its documents will get, and the statistics of its index."""
        self.name = name
        self.engine = engine
        self._queries = queries
        self._index = index

    @property
    def info(self) -> Info:
        manifest = self.engine.manifest
        return Info(
            self.name, manifest.fingerprint, manifest.dimension, default_chunks(self.engine)
        )

    async def vectors_of(self, texts: Sequence[str]) -> Vectors:
        return await self._queries.of(texts, self.engine)

    def check_room(self, queries: Sequence[Query]) -> None:
        """Do nothing: such a search costs nothing."""

    async def search(self, queries: Sequence[Query], made_by: str | None = None) -> list[list[Hit]]:
        return [empty_answer(query) for query in queries]

    async def get(self, id: str) -> Document | None:
        return None

    async def page_within(
        self, after: int, limit: int, filter: Filter | None
    ) -> tuple[list[tuple[int, Document]], bool]:
        return [], False

    async def count(self, filter: Filter | None = None) -> int:
        return 0

    async def warnings(self, filter: Filter | None) -> list[str]:
        return []

    async def delete(self, ids: Sequence[str]) -> int:
        return 0

    async def delete_where(self, filter: Filter) -> int:
        return 0

    async def description(self) -> Description:
        return Description(self.info, 0, 0, self._index, 0, None)
