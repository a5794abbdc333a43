"""Collections in Qdrant, on a server or in a folder.

How this works. A collection is one of Qdrant's, with a point for each row. Its metadata says what it was created
for. A put writes all rows of its documents and then removes the rows of older versions, which have other
numbers; so it can be repeated after any interruption. Between the two a search may see chunks of both versions.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from qdrant_client import models

from server.databases.address import Address
from server.databases.database import Abilities, Entry, FoundRow
from server.databases.portions import batches, portions
from server.databases.qdrant.conditions import CONDITIONS, among, condition, every, matched
from server.databases.qdrant.connection import Connection, TooLarge
from server.databases.qdrant.points import (
    DENSE,
    DIGEST,
    DOCUMENT,
    FIRST,
    INDEXES,
    NUMBER,
    OF_CHUNKS,
    OF_DOCUMENTS,
    OF_ROWS,
    SPARSE,
    chunk_of,
    document_key,
    document_of,
    entry_of,
    n_bytes,
    points_of,
)
from server.databases.qdrant.words import asked
from server.errors import DatabaseRefused, InvalidRequest
from server.store.filters.tree import TEXT, Filter, keys
from server.store.fusion import RANK_CONSTANT
from server.store.records import ChunkRules, Document, Info
from server.types import Vectors

# A server takes 32 MB a request unless it is told otherwise.
MAX_POINTS, MAX_BYTES = 256, 16 << 20
# Ids and documents of one request, and documents of one answer, which hold whole texts.
MAX_IDS, PAGE, LOCAL_PAGE = 1_000, 250, 1_000
# Documents to which a condition on whole texts may restrict a search over chunks.
MAX_AMONG = 10_000
# Ranks beyond those that are wanted which the fusion sees of each search.
DEEPER = 4
OWN = "inkwell"


class QdrantDatabase:
    """A Qdrant server, or a folder with what one would hold; see `VectorDatabase`."""

    abilities = Abilities(CONDITIONS, own_words=True, own_fusion=True, whole_documents=False)

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection = Connection(address)
        # In a folder each request reads all rows, and none waits for a network.
        self._page = LOCAL_PAGE if address.is_local else PAGE

    def ping(self) -> str:
        version = self._connection.call("info").version
        return f"Qdrant {version}" + (" (in a folder)" if self._address.is_local else "")

    def create(self, info: Info) -> None:
        call = self._connection.call
        if not call("collection_exists", info.name):
            self._make(info)
        found = self.info(info.name)
        if found != info:
            raise DatabaseRefused(
                f"Qdrant at {self._address.target} has a collection {info.name!r} that was made for"
                f" {'something else' if found is None else _shown(found)}, not for {_shown(info)};"
                " choose another prefix, or drop it there"
            )
        if not self._address.is_local:  # where they have no effect
            for field, kind in INDEXES.items():
                call("create_payload_index", info.name, field, kind, wait=True)

    def _make(self, info: Info) -> None:
        options = self._address.options
        try:
            self._connection.call(
                "create_collection",
                info.name,
                # Unit vectors come back as they were stored, which those of Qdrant's cosine do not.
                {DENSE: models.VectorParams(size=info.dimension, distance=models.Distance.DOT)},
                {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                shard_number=_number(options, "shards"),
                replication_factor=_number(options, "replicas"),
                metadata={OWN: _described(info)},
            )
        except DatabaseRefused:
            # Another process may have made it meanwhile; `create` compares what is there.
            if not self._connection.call("collection_exists", info.name):
                raise

    def info(self, name: str) -> Info | None:
        if not self._connection.call("collection_exists", name):
            return None
        found = self._connection.call("get_collection", name).config.metadata or {}
        return _info(name, found.get(OWN))

    def names(self) -> list[str]:
        found = self._connection.call("get_collections").collections
        return sorted(each.name for each in found if self.info(each.name) is not None)

    def drop(self, name: str) -> None:
        self._connection.call("delete_collection", name)

    def put(self, info: Info, entries: Sequence[Entry]) -> None:
        stored = self._rows(info, [entry.document.id for entry in entries])
        newest = {key: max(numbers, default=-1) for key, (numbers, _) in stored.items()}
        # What is repeated after a newer version was stored changes nothing.
        written = [each for each in entries if newest.get(_key(each), -1) <= each.number]
        for points in batches(
            chain.from_iterable(map(points_of, written)), n_bytes, MAX_POINTS, MAX_BYTES
        ):
            self._connection.call("upsert", info.name, points, wait=True)
        older = [
            label
            for each in written
            for label, number in stored.get(_key(each), ([], []))[1]
            if number != each.number
        ]
        for part in portions(older, MAX_IDS):
            selector = models.PointIdsList(points=part)
            self._connection.call("delete", info.name, selector, wait=True)

    def delete(self, info: Info, ids: Collection[str]) -> None:
        for part in portions(list(ids), MAX_IDS):
            rows = every(among(DOCUMENT, [document_key(id) for id in part]))
            selector = models.FilterSelector(filter=rows)
            self._connection.call("delete", info.name, selector, wait=True)

    def digests(self, info: Info, ids: Sequence[str]) -> dict[str, str]:
        return {payload["id"]: payload[DIGEST] for payload in self._firsts(info, ids, [DIGEST])}

    def documents(self, info: Info, ids: Sequence[str]) -> dict[str, Document]:
        found = self._firsts(info, ids, OF_DOCUMENTS)
        return {payload["id"]: document_of(payload) for payload in found}

    def entries(self, info: Info, after: int, limit: int) -> list[Entry]:
        firsts = self._scroll(info, every(matched(FIRST, True)), [NUMBER], after, limit)
        found: list[Entry] = []
        for part in portions([point.id for point in firsts], self._page):
            rows = self._scroll(info, every(among(NUMBER, part)), OF_ROWS, vectors=True)
            ordered = sorted(rows, key=lambda point: (point.payload[NUMBER], point.id))
            grouped = groupby(ordered, key=lambda point: point.payload[NUMBER])
            found += [entry_of(list(points)) for _, points in grouped]
        return found

    def page(
        self, info: Info, after: int, limit: int, filter: Filter | None
    ) -> list[tuple[int, Document]]:
        points = self._scroll(info, _of_documents(filter), OF_DOCUMENTS, after, limit)
        return [(point.id, document_of(point.payload)) for point in points]

    def count(self, info: Info, filter: Filter | None) -> int:
        found = self._connection.call("count", info.name, _of_documents(filter), exact=True)
        return int(found.count)

    def nearest(self, info: Info, vector: Vectors, k: int, filter: Filter | None) -> list[FoundRow]:
        wanted = self._of_chunks(info, filter)
        return self._query(info, k, query=vector.tolist(), using=DENSE, query_filter=wanted)

    def by_words(
        self, info: Info, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        if not words:
            return []
        query = models.SparseVector(**asked(words))
        wanted = self._of_chunks(info, filter)
        return self._query(info, k, query=query, using=SPARSE, query_filter=wanted)

    def by_both(
        self, info: Info, vector: Vectors, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        wanted = self._of_chunks(info, filter)
        searches = [(DENSE, vector.tolist())]
        if words:
            searches.append((SPARSE, models.SparseVector(**asked(words))))
        prefetch = [
            models.Prefetch(query=query, using=using, filter=wanted, limit=DEEPER * k)
            for using, query in searches
        ]
        # Qdrant counts ranks from 0, and `store.fusion` from 1.
        fusion = models.RrfQuery(rrf=models.Rrf(k=RANK_CONSTANT + 1))
        return self._query(info, k, query=fusion, prefetch=prefetch)

    def close(self) -> None:
        self._connection.close()

    def _query(self, info: Info, k: int, **fields: Any) -> list[FoundRow]:
        if k < 1:
            return []
        found = self._connection.call(
            "query_points", info.name, limit=k, with_payload=OF_CHUNKS, **fields
        )
        return [FoundRow(each.id, each.score, chunk_of(each.payload)) for each in found.points]

    def _of_chunks(self, info: Info, filter: Filter | None) -> models.Filter | None:
        """Return the filter of a search over chunks, which do not hold their document's whole text."""
        if filter is None:
            return None
        if TEXT not in keys(filter) or not info.in_parts:
            return condition(filter)
        found = self._scroll(info, _of_documents(filter), [DOCUMENT], limit=MAX_AMONG + 1)
        if len(found) > MAX_AMONG:
            raise InvalidRequest(
                f"the filter keeps more than {MAX_AMONG:,} documents, and a condition on {TEXT} with so many"
                " cannot be evaluated by Qdrant in a search over chunks; add conditions on other fields",
                param="filter",
            )
        return every(among(DOCUMENT, [point.payload[DOCUMENT] for point in found]))

    def _rows(
        self, info: Info, ids: Sequence[str]
    ) -> dict[str, tuple[list[int], list[tuple[int, int]]]]:
        """Return for the keys of documents the numbers of complete versions, and label and number of all rows."""
        found: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}
        for part in portions(list(ids), MAX_IDS):
            wanted = every(among(DOCUMENT, [document_key(id) for id in part]))
            for point in self._scroll(info, wanted, [DOCUMENT, NUMBER, FIRST]):
                numbers, rows = found.setdefault(point.payload[DOCUMENT], ([], []))
                rows.append((point.id, point.payload[NUMBER]))
                if FIRST in point.payload:
                    numbers.append(point.payload[NUMBER])
        return found

    def _firsts(
        self, info: Info, ids: Sequence[str], fields: Sequence[str]
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the first rows of documents; of two versions of one, the newer one last."""
        for part in portions(list(ids), MAX_IDS):
            wanted = every(matched(FIRST, True), among(DOCUMENT, [document_key(id) for id in part]))
            for point in self._scroll(info, wanted, ["id", *fields]):
                yield point.payload

    def _scroll(
        self,
        info: Info,
        wanted: models.Filter,
        fields: Sequence[str],
        after: int = -1,
        limit: int | None = None,
        vectors: bool = False,
    ) -> list[Any]:
        """Return points by ascending id, in as many requests as it takes; all where there is no limit."""
        found: list[Any] = []
        most = self._page
        start: int | None = after + 1
        while start is not None and (limit is None or len(found) < limit):
            size = most if limit is None else min(most, limit - len(found))
            try:
                points, start = self._connection.call(
                    "scroll",
                    info.name,
                    wanted,
                    limit=size,
                    offset=start,
                    with_payload=list(fields),
                    with_vectors=[DENSE] if vectors else False,
                )
            except TooLarge:
                if size == 1:
                    raise
                most = size // 2
                continue
            found += points
        return found


def _key(entry: Entry) -> str:
    return document_key(entry.document.id)


def _of_documents(filter: Filter | None) -> models.Filter:
    first = matched(FIRST, True)
    return every(first) if filter is None else every(first, condition(filter))


def _number(options: Mapping[str, str], name: str) -> int | None:
    given = options.get(name)
    return None if given is None else int(given)


def _described(info: Info) -> dict[str, object]:
    chunks = info.chunks
    return {
        "fingerprint": info.fingerprint,
        "dimension": info.dimension,
        "chunks": None if chunks is None else {"size": chunks.size, "overlap": chunks.overlap},
    }


def _info(name: str, described: object) -> Info | None:
    """Return what a collection was created for; None where nothing here wrote that."""
    match described:
        case {"fingerprint": str(fingerprint), "dimension": int(dimension), "chunks": None}:
            return Info(name, fingerprint, dimension)
        case {
            "fingerprint": str(fingerprint),
            "dimension": int(dimension),
            "chunks": {"size": int(size), "overlap": int(overlap)},
        } if 0 <= overlap < size:
            return Info(name, fingerprint, dimension, ChunkRules(size, overlap))
    return None


def _shown(info: Info) -> str:
    chunks = "no chunks" if info.chunks is None else f"chunks of {info.chunks.size} tokens"
    return f"the model {info.fingerprint[:16]} with {info.dimension} numbers and {chunks}"
