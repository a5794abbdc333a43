"""Documents on their way into a collection: which must be stored, and their vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.collections.chunk_embedding import Chunked, chunk_documents, embed_chunks
from server.collections.document_limits import check_chunks
from server.collections.writing.reading_note import reading_note
from server.errors import AlreadyExists, OtherModel
from server.inference.cpu_provenance import NOTE, note_of
from server.inference.engine import Engine
from server.store.collection import Collection
from server.store.reading.parts import Parts, parts_of
from server.store.records import Document, Info, Span
from server.types import Vectors


@dataclass(slots=True)
class WriteBatch:
    """Documents that one transaction will store.

    info: of the collection that the vectors are for. documents: each id once. replace: whether
    documents of the same ids are replaced; then those that are stored unchanged are left out.
    given: vectors that exist already, of whole documents, by id. parts: chunks with vectors that are stored
    as they are, by id.
    """

    info: Info
    documents: Sequence[Document]
    replace: bool
    given: Mapping[str, Vectors] = field(default_factory=dict)
    parts: Mapping[str, Parts] = field(default_factory=dict)
    _chunked: dict[str, Chunked] = field(default_factory=dict)
    _vectors: dict[str, Vectors] = field(default_factory=dict)
    _note_of: Engine | None = None

    def __len__(self) -> int:
        """The number of documents that have their vectors."""
        return len(self._chunked)

    def missing(self, collection: Collection) -> list[Document]:
        """Return the documents that must be stored and have no vectors yet.

        Raises AlreadyExists where one is stored that must not be replaced.
        """
        if not self.replace:
            _refuse_known(collection, self.documents)
        others = [each for each in self.documents if each.id not in self._chunked]
        same = collection.documents.unchanged(others) if self.replace else set()
        if compared := [id for id in same if id in self.parts]:
            stored = parts_of(collection.documents, compared)
            same -= {id for id in compared if stored.get(id) != self.parts[id].as_stored()}
        return [each for each in others if each.id not in same]

    def lacks_vectors(self) -> bool:
        """Return whether a model may be needed."""
        return any(each.id not in self.parts for each in self.documents)

    def of(self, info: Info) -> "WriteBatch":
        """Return a batch of the same documents for a collection that was reindexed meanwhile.

        No computed vector is of use. Raises OtherModel for given ones of another embedder.
        """
        if self.parts and info.fingerprint != self.info.fingerprint:
            raise OtherModel(
                f"collection {info.name!r} was reindexed with another model while these vectors came;"
                " send the documents without them"
            )
        return WriteBatch(info, self.documents, self.replace, parts=self.parts)

    async def embed(self, documents: Sequence[Document], engine: Engine | None) -> None:
        """Chunk documents of this batch, and embed the chunks that have no vector.

        engine: None where all of them have given ones.
        """
        ready = [each for each in documents if each.id in self.parts]
        check_chunks(ready, [self.parts[each.id].spans for each in ready])
        for each in ready:
            parts = self.parts[each.id]
            self._chunked[each.id] = Chunked(each, parts.spans, ())
            self._vectors[each.id] = parts.vectors
        if engine is not None:
            await self._embed([each for each in documents if each.id not in self.parts], engine)

    async def _embed(self, documents: Sequence[Document], engine: Engine) -> None:
        chunked = await chunk_documents(documents, self.info.chunks, engine)
        check_chunks(documents, [each.spans for each in chunked])
        lacking = [
            each for each in chunked if each.document.id not in self.given or len(each.spans) > 1
        ]
        if lacking:
            ends = np.cumsum([len(each.spans) for each in lacking])
            vectors = np.split(await embed_chunks(lacking, engine), ends[:-1])
            for each, rows in zip(lacking, vectors, strict=True):
                self._vectors[each.document.id] = rows
            self._note_of = engine
        for each in chunked:
            id = each.document.id
            self._chunked[id] = each
            if id not in self._vectors:
                self._vectors[id] = self.given[id][None]

    def embedded(self) -> Iterator[tuple[Document, Sequence[Span], Vectors]]:
        """Yield each document that has its vectors, with its chunks: float32 (B, D), one for each."""
        for id, each in self._chunked.items():
            yield each.document, each.spans, self._vectors[id]

    def store(self, collection: Collection) -> list[Document]:
        """Store the documents, unless some have no vectors yet: then it returns those, and stores none.

        The caller holds the collection's write lock: what `missing` found before may have changed.
        """
        if collection.info != self.info:
            return list(self.documents)
        missing = self.missing(collection)
        if not missing:
            engine = self._note_of
            note = note_of(collection.documents.noted(NOTE), engine.provenance) if engine else {}
            # A document in one chunk is read as it always was.
            if any(len(each.spans) > 1 for each in self._chunked.values()):
                note |= reading_note(collection)
            collection.add(
                [each.document for each in self._chunked.values()],
                np.concatenate([self._vectors[id] for id in self._chunked]),
                [each.spans for each in self._chunked.values()],
                note,
                [each.outline for each in self._chunked.values()],
            )
        return missing


def _refuse_known(collection: Collection, documents: Sequence[Document]) -> None:
    known = collection.documents.numbers([document.id for document in documents])
    if known:
        raise AlreadyExists(
            f'document {next(iter(known))!r} exists already; leave out "replace": false to'
            " replace it",
            param="documents",
        )
