"""PostgreSQL with pgvector as a `VectorDatabase`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from server.databases.address import Address
from server.databases.database import Abilities, Entry, FoundRow
from server.databases.portions import portions
from server.databases.postgres import reading, schema, searching, writing
from server.databases.postgres.encryption import context
from server.databases.postgres.extension import Extension, prepared
from server.databases.postgres.login import login
from server.databases.postgres.pool import Pool
from server.databases.postgres.session import Session
from server.store.filters.tree import (
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Not,
    OneOf,
)
from server.store.records import Document, Info
from server.types import Vectors

Result = TypeVar("Result")


class PostgresDatabase:
    """A database of a PostgreSQL server, in which each collection is a schema."""

    abilities = Abilities(
        conditions=frozenset({AllOf, AnyOf, Begins, Compared, Contains, Exists, Not, OneOf}),
        own_words=True,
        own_fusion=True,
        whole_documents=True,
    )

    def __init__(self, address: Address) -> None:
        """Connect to nothing yet; raises BadSettings for an address that cannot be meant."""
        self._login = login(address)
        self._pool = Pool(self._login, context(self._login))
        self._extension: Extension | None = None

    def ping(self) -> str:
        """Return the versions of PostgreSQL and pgvector."""
        self._extension = prepared(self._pool, self._login)
        return str(self._extension)

    def create(self, info: Info) -> None:
        schema.check_name(info.name)
        self._write(lambda session: schema.create(session, info))

    def info(self, name: str) -> Info | None:
        found = self._read(lambda session: schema.stored_info(session, name))
        return None if found is None else found[0]

    def names(self) -> list[str]:
        return self._read(schema.names)

    def drop(self, name: str) -> None:
        self._write(lambda session: schema.drop(session, name))

    def put(self, info: Info, entries: Sequence[Entry]) -> None:
        for batch in writing.batches(entries):
            self._write(partial(writing.put, name=info.name, entries=batch))

    def delete(self, info: Info, ids: Collection[str]) -> None:
        for some in portions(list(ids), writing.MOST_DOCUMENTS):
            self._write(partial(writing.delete, name=info.name, ids=some))

    def digests(self, info: Info, ids: Sequence[str]) -> dict[str, str]:
        return self._read(lambda session: reading.digests(session, info.name, ids))

    def documents(self, info: Info, ids: Sequence[str]) -> dict[str, Document]:
        return self._read(lambda session: reading.documents(session, info.name, ids))

    def entries(self, info: Info, after: int, limit: int) -> list[Entry]:
        return self._read(lambda session: reading.entries(session, info.name, after, limit))

    def page(
        self, info: Info, after: int, limit: int, filter: Filter | None
    ) -> list[tuple[int, Document]]:
        return self._read(lambda session: reading.page(session, info.name, after, limit, filter))

    def count(self, info: Info, filter: Filter | None) -> int:
        return self._read(lambda session: reading.count(session, info.name, filter))

    def nearest(self, info: Info, vector: Vectors, k: int, filter: Filter | None) -> list[FoundRow]:
        def search(session: Session) -> list[FoundRow]:
            found = searching.nearest(session, info, vector, k, filter)
            return searching.detailed(session, info, found)

        return self._read(search, searching.settings(k))

    def by_words(
        self, info: Info, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        def search(session: Session) -> list[FoundRow]:
            found = searching.by_words(session, info, words, k, filter)
            return searching.detailed(session, info, found)

        return self._read(search)

    def by_both(
        self, info: Info, vector: Vectors, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        depth = max(k, searching.DEPTH)

        def search(session: Session) -> list[FoundRow]:
            rankings = (
                searching.nearest(session, info, vector, depth, filter),
                searching.by_words(session, info, words, depth, filter),
            )
            return searching.detailed(session, info, searching.fused(rankings, k))

        return self._read(search, searching.settings(depth))

    def close(self) -> None:
        self._pool.close()

    def _read(
        self, work: Callable[[Session], Result], settings: Mapping[str, str] | None = None
    ) -> Result:
        return self._pool.read(work, self._settings() | dict(settings or {}))

    def _write(self, work: Callable[[Session], Result]) -> Result:
        return self._pool.write(work, self._settings())

    def _settings(self) -> dict[str, str]:
        """Return what lets statements find the types and operators of pgvector, and nothing of other programs."""
        if self._extension is None:
            self._extension = prepared(self._pool, self._login)
        return {"search_path": f"pg_catalog, {schema.quoted(self._extension.schema)}, pg_temp"}
