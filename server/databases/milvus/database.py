"""Collections in Milvus, behind the seam of `databases.database`.

How this works. A chunk is a row of one collection of Milvus, under its label (`schema`, `rows`). To replace a
document, the rows of its new version are written first, and then those of older versions are removed by their
labels. So a search between the two may see chunks of both, but never neither. All reads are of strong consistency:
they see what was written before them, also through another server.

A query of Milvus returns at most 16,384 rows. So lists are read in pages by ascending label, which is what the
client's own iterator asks for, but without its extra calls.
"""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from server.databases.address import Address
from server.databases.database import Abilities, Entry, FoundRow
from server.databases.milvus import rows
from server.databases.milvus.connection import Connection
from server.databases.milvus.expression import CONDITIONS, all_of, among, expression
from server.databases.milvus.rows import Stored, n_bytes, piece_keys
from server.databases.milvus.schema import (
    PROPERTY,
    STRONG,
    chunk_indexes,
    chunk_schema,
    piece_indexes,
    piece_schema,
    pieces_of,
    read,
    written,
)
from server.databases.milvus.searching import BY_VECTOR, BY_WORDS, Search, ran
from server.databases.milvus.words import asked
from server.databases.portions import batches, portions
from server.errors import DatabaseAway, DatabaseRefused
from server.store.filters.tree import Filter
from server.store.records import Document, Info
from server.types import Vectors

HEAD = "head == true"
# Rows and bytes of one request. A server takes 64 MB; its log takes rows of a few MB at a time.
MOST_ROWS, MOST_BYTES = 512, 4 << 20
# Ids of one question, and rows with long texts of one answer: 100 MB at most, as servers allow.
MOST_IDS, MOST_TEXTS = 1_000, 512
MOST_LABELS = 10_000
# Rows that milvus-lite holds apart from its files, which every call reads one by one: with 3,000 of them a search by
# words took 2.4 s, and 0.08 s after a flush (2026-11-30, one core of an AMD EPYC).
FRESH = 1_000
# Hits of one search: the limit of Milvus.
MOST_HITS = 16_384
# Hits of each of two searches that are fused, at least.
FUSED = 100
# What the client's iterator says: rows by ascending primary key, of which the first are enough.
IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}


class MilvusDatabase:
    """A Milvus cluster, or milvus-lite in a file."""

    abilities = Abilities(CONDITIONS, own_words=True, own_fusion=True, whole_documents=False)

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection = Connection(address)
        # milvus-lite takes one writer at a time, and removing what was replaced must not meet another put.
        self._writing = threading.Lock()
        self._loaded: set[str] = set()
        self._local = address.is_local
        # Rows written to a collection of milvus-lite since it was last flushed.
        self._fresh: dict[str, int] = {}

    def ping(self) -> str:
        version = str(self._call("get_server_version"))
        return (
            version.replace("milvus_lite-", "milvus-lite ")
            if "lite" in version
            else f"Milvus {version}"
        )

    def create(self, info: Info) -> None:
        with self._writing:
            if self._call("has_collection", info.name):
                there = self.info(info.name)
                if there != info:
                    made = "another program" if there is None else f"{written(there)}"
                    raise DatabaseRefused(
                        f"the collection {info.name} at {self._address.target} was made by or for {made}, not for"
                        f" {written(info)}; give another prefix, or remove it there"
                    )
            # The collection of pieces first: where there is the other, there is this one.
            self._made(pieces_of(info.name), piece_schema(), piece_indexes(), {})
            # milvus-lite keeps no descriptions, and properties that it does not know.
            properties = {PROPERTY: written(info)} if self._local else {}
            self._made(info.name, chunk_schema(info), chunk_indexes(local=self._local), properties)

    def info(self, name: str) -> Info | None:
        if not self._call("has_collection", name):
            return None
        return read(name, self._call("describe_collection", name))

    def names(self) -> list[str]:
        return [name for name in self._call("list_collections") if self.info(name) is not None]

    def drop(self, name: str) -> None:
        with self._writing:
            if self.info(name) is None:
                return
            # In this order, so that what is left after a fall in between is dropped by the next call.
            for each in (pieces_of(name), name):
                self._loaded.discard(each)
                self._call("drop_collection", each)

    def put(self, info: Info, entries: Sequence[Entry]) -> None:
        documents = [(entry, rows.written(entry)) for entry in entries]
        with self._writing:
            stored = list(self._versions(info, [entry.document.id for entry in entries]))
            latest: dict[str, int] = {}
            for row in stored:
                latest[row["owner"]] = max(latest.get(row["owner"], 0), row["number"])
            newer = [
                (entry, each)
                for entry, each in documents
                if entry.number >= latest.get(rows.owner(entry.document.id), 0)
            ]
            latest.update((rows.owner(entry.document.id), entry.number) for entry, _ in newer)
            self._upsert(pieces_of(info.name), [row for _, each in newer for row in each.pieces])
            self._upsert(info.name, [row for _, each in newer for row in each.rows])
            self._remove(info, [row for row in stored if row["number"] != latest[row["owner"]]])

    def delete(self, info: Info, ids: Collection[str]) -> None:
        with self._writing:
            self._remove(info, list(self._versions(info, list(ids))))

    def digests(self, info: Info, ids: Sequence[str]) -> dict[str, str]:
        heads = self._heads(info, ids, ["digest"], MOST_IDS)
        return {id: row["digest"] for id, row in heads.items()}

    def documents(self, info: Info, ids: Sequence[str]) -> dict[str, Document]:
        heads = self._heads(info, ids, rows.OF_DOCUMENT, MOST_TEXTS)
        found = self._documents(info, list(heads.values()))
        return {id: document for id, (_, document) in zip(heads, found, strict=True)}

    def entries(self, info: Info, after: int, limit: int) -> list[Entry]:
        heads = self._page(info, HEAD, after, limit, [*rows.OF_DOCUMENT, "digest"])
        documents = self._documents(info, heads)
        found: dict[int, list[Stored]] = {head["label"]: [] for head in heads}
        for numbers in portions(list(found), MOST_IDS):
            fields = list({*rows.OF_CHUNK, *rows.OF_ROW})
            for row in self._scan(info, among("number", numbers), fields, MOST_TEXTS):
                found[row["number"]].append(row)
        every = [row for each in found.values() for row in each]
        others = self._pieces(info, every, rows.CHUNK, rows.TERMS)
        return [
            Entry(document, head["digest"], [rows.row(each, others) for each in found[number]])
            for head, (number, document) in zip(heads, documents, strict=True)
        ]

    def page(
        self, info: Info, after: int, limit: int, filter: Filter | None
    ) -> list[tuple[int, Document]]:
        kept = all_of(HEAD, expression(filter))
        return self._documents(info, self._page(info, kept, after, limit, rows.OF_DOCUMENT))

    def count(self, info: Info, filter: Filter | None) -> int:
        kept = all_of(HEAD, expression(filter))
        (counted,) = self._query(info.name, kept, ["count(*)"])
        return int(counted["count(*)"])

    def nearest(self, info: Info, vector: Vectors, k: int, filter: Filter | None) -> list[FoundRow]:
        return self._search(info, BY_VECTOR.of(vector.tolist(), k, expression(filter)), k)

    def by_words(
        self, info: Info, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        if not words:
            return []
        return self._search(info, BY_WORDS.of(asked(words), k, expression(filter)), k)

    def by_both(
        self, info: Info, vector: Vectors, words: Sequence[str], k: int, filter: Filter | None
    ) -> list[FoundRow]:
        if not words:
            return self.nearest(info, vector, k, filter)
        kept, depth = expression(filter), max(k, FUSED)
        searches = [
            BY_VECTOR.of(vector.tolist(), depth, kept),
            BY_WORDS.of(asked(words), depth, kept),
        ]
        return self._search(info, searches, k)

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, *arguments: object, **options: object) -> Any:
        try:
            return self._connection.call(method, *arguments, **options)
        except DatabaseAway:
            # A server that comes back may have to be asked to load its collections again.
            self._loaded.clear()
            raise

    def _made(self, name: str, schema: Any, indexes: Any, properties: Mapping[str, str]) -> None:
        """Make a collection of Milvus with its indexes, and what of it is missing after a fall."""
        options = self._address.options
        if not self._call("has_collection", name):
            shards = {"num_shards": int(options["shards"])} if "shards" in options else {}
            self._call(
                "create_collection",
                name,
                schema=schema,
                consistency_level=STRONG,
                properties=dict(properties),
                **shards,
            )
        there = self._call("list_indexes", name)
        for index in indexes:
            if index.field_name not in there:
                # subtle: to wait for it, the client keeps no timeout. Loading waits for it, too, and keeps one.
                self._call("create_index", name, type(indexes)([index]), sync=False)
        self._load(name)

    def _load(self, name: str) -> None:
        """Have Milvus load a collection for searches, once a connection; most often it is loaded."""
        if name not in self._loaded:
            options = self._address.options
            copies = {"replica_number": int(options["replicas"])} if "replicas" in options else {}
            self._call("load_collection", name, **copies)
            self._loaded.add(name)

    def _query(
        self, name: str, kept: str, fields: Sequence[str], **options: object
    ) -> list[Stored]:
        self._load(name)
        return [
            dict(row)
            for row in self._call(
                "query",
                name,
                filter=kept,
                output_fields=list(fields),
                consistency_level=STRONG,
                **options,
            )
        ]

    def _scan(
        self, info: Info, kept: str, fields: Sequence[str], page: int, after: int = -1
    ) -> Iterator[Stored]:
        """Yield all rows by ascending label. page: how many are asked for at a time."""
        while True:
            further = all_of(f"label > {after}", kept)
            found = self._query(info.name, further, fields, limit=page, **IN_ORDER)
            yield from found
            # subtle: a page with fewer rows is not the last, for a server that merges them may stop early.
            if not found:
                return
            after = found[-1]["label"]

    def _page(
        self, info: Info, kept: str, after: int, limit: int, fields: Sequence[str]
    ) -> list[Stored]:
        page = min(limit, MOST_TEXTS)
        return list(islice(self._scan(info, kept, fields, page, after), limit)) if limit else []

    def _versions(self, info: Info, ids: Sequence[str]) -> Iterator[Stored]:
        """Yield the rows of these documents with all that it takes to remove them."""
        for some in portions(ids, MOST_IDS):
            kept = among("owner", map(rows.owner, some))
            yield from self._scan(info, kept, rows.OF_VERSION, MOST_LABELS)

    def _heads(
        self, info: Info, ids: Sequence[str], fields: Sequence[str], most: int
    ) -> dict[str, Stored]:
        """Return the first rows of the stored documents among these, of each in its latest version."""
        found: dict[str, Stored] = {}
        for some in portions(ids, most):
            named = {rows.owner(id): id for id in some}
            kept = all_of(HEAD, among("owner", named))
            for row in self._scan(info, kept, [*fields, "owner"], most):  # by ascending number
                found[named[row["owner"]]] = row
        return found

    def _documents(self, info: Info, heads: Sequence[Stored]) -> list[tuple[int, Document]]:
        others = self._pieces(info, heads, rows.CHUNK, rows.DOCUMENT)
        return [(row["number"], rows.document(row, others)) for row in heads]

    def _pieces(self, info: Info, found: Iterable[Stored], *fields: str) -> dict[str, str]:
        """Return the further pieces of rows, by their keys."""
        keys = [key for row in found for key in piece_keys(row, *fields)]
        others: dict[str, str] = {}
        for some in portions(keys, MOST_TEXTS):
            kept = among("key", some)
            pieces = self._query(pieces_of(info.name), kept, ["key", "piece"])
            others |= {row["key"]: row["piece"] for row in pieces}
        return others

    def _upsert(self, name: str, stored: Sequence[Stored]) -> None:
        for batch in batches(stored, n_bytes, MOST_ROWS, MOST_BYTES):
            self._call("upsert", name, batch)
        self._fresh[name] = self._fresh.get(name, 0) + len(stored)
        if self._local and self._fresh[name] >= FRESH:
            self._call("flush", name)
            self._fresh[name] = 0

    def _remove(self, info: Info, stored: Sequence[Stored]) -> None:
        """Remove rows, and then their pieces: what a row names is there as long as the row."""
        for labels in portions([row["label"] for row in stored], MOST_LABELS):
            self._call("delete", info.name, ids=list(labels))
        keys = [key for row in stored for key in piece_keys(row, *rows.LONG)]
        for some in portions(keys, MOST_LABELS):
            self._call("delete", pieces_of(info.name), ids=list(some))

    def _search(self, info: Info, search: Search | Sequence[Search], k: int) -> list[FoundRow]:
        if k > MOST_HITS:
            raise DatabaseRefused(
                f"Milvus finds at most {MOST_HITS} chunks in one search, not {k}; ask for fewer"
            )
        # Long texts come with the hits where these are few, else in portions.
        fields = rows.OF_CHUNK if k <= MOST_TEXTS else ["label"]
        self._load(info.name)
        hits = ran(self._call, info.name, search, k, fields)
        stored = [hit.row for hit in hits]
        if k > MOST_TEXTS:
            stored = [
                row
                for labels in portions([hit.label for hit in hits], MOST_TEXTS)
                for row in self._query(info.name, among("label", labels), rows.OF_CHUNK)
            ]
        others = self._pieces(info, stored, rows.CHUNK)
        chunks = {row["label"]: rows.chunk(row, others) for row in stored}
        return [
            FoundRow(hit.label, hit.score, chunks[hit.label]) for hit in hits if hit.label in chunks
        ]
