"""Finds what is wrong with a collection's files: every row, checksum and index is read.

Using the collection finds most of it too, but only in what it happens to read.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from server.errors import StoreDamaged, StoreError
from server.messages.message import Message
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE, Collection
from server.store.documents import Documents
from server.store.filters.sql import SqlValue, attributes
from server.store.records import Document, Span
from server.store.schema import words_of_all
from server.store.selection import Selection
from server.store.sqlite.ascending import ascending
from server.store.vector_index import BadSnapshot, IndexMaker, usable
from server.store.words.vocabulary import VOCABULARY, vocabulary_of
from server.types import Labels

# Key and value of what filters read of a document.
Row = tuple[str, SqlValue]

ROWS = 1024
# Of one kind; a damaged disk causes thousands.
MOST_FAULTS = 20
SAMPLE = 64
# A compressed index compares less exactly.
OWN_COSINE = 0.98
# SQLite ends at 2 ** 63 - 1, and reports a full disk then. A million a second take 146,000 years to this.
MOST_GIVEN = 2**62
INSTANCES = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS temp.instances USING fts5vocab (main, words, instance)"
)
SHOWN = 60  # characters of a key or a value in a message


def faults_of(home: Path, make: IndexMaker) -> list[Message]:
    """Return the faults of a collection and its index; no other process may use its folder `home`.

    make: makes its index.
    """
    try:
        documents = Documents(home / DATABASE_FILE, None)
    except Exception as error:
        return [_fault_of(error)]
    try:
        faults = faults_in(documents)
        if (name := documents.info.name) != home.name:
            faults.append(
                Message(
                    "the folder {folder} holds the collection {name}; rename the folder to {name}",
                    folder=home,
                    name=ascii(name)[1:-1],
                )
            )
    finally:
        documents.database.close_unchanged()
    # An index of a damaged database is wrong too.
    return faults or _found(_of_index(home, make))


def faults_in(documents: Documents) -> list[Message]:
    """Return the faults of a database."""
    steps = (
        _of_file,
        _of_numbers,
        _of_documents,
        _of_filters,
        _of_vectors,
        _of_words,
        _of_terms,
    )
    return list(dict.fromkeys(fault for step in steps for fault in _found(step(documents))))


def _found(faults: Iterator[Message]) -> list[Message]:
    """Return the first faults, and the error that ended the search for others."""
    found: list[Message] = []
    try:
        found += islice(faults, MOST_FAULTS)
    except Exception as error:
        # A damaged file may hold anything: a text that is no text, a missing key.
        found.append(_fault_of(error))
    return found


def _fault_of(error: Exception) -> Message:
    if isinstance(error, StoreError):
        return error.sentence
    said = f"{type(error).__name__}: {error}"
    return Message("it cannot be read: {said}", said=said)


def _of_file(documents: Documents) -> Iterator[Message]:
    for said in documents.database.complaints():
        yield Message("SQLite finds: {said}", said=said)
    # What this raises is a fault.
    vocabulary_of(documents.noted(VOCABULARY))


def _of_numbers(documents: Documents) -> Iterator[Message]:
    """Find out whether SQLite still knows which numbers and labels it has given, and has more."""
    for table, column in (("documents", "number"), ("parts", "label")):
        query = (
            f"SELECT max({column}), (SELECT seq FROM sqlite_sequence WHERE name = ?) FROM {table}"
        )
        ((highest, given),) = documents.database.rows(query, (table,))
        if highest is not None and (given is None or given < highest):
            yield Message(
                "{table} would get numbers that are in use: {given} is less than {highest}",
                table=table,
                given=given,
                highest=highest,
            )
        if given is not None and given > MOST_GIVEN:
            yield Message(
                "{table} has no numbers left after {given}: back the collection up and restore it",
                table=table,
                given=given,
            )
    orphans = f"SELECT document FROM parts EXCEPT SELECT number FROM documents LIMIT {MOST_FAULTS}"
    for (number,) in documents.database.rows(orphans):
        yield Message("document number {number} is missing", number=number)


def _of_documents(documents: Documents) -> Iterator[Message]:
    """Compare checksums, and find chunks that lie outside of their documents."""
    for numbers in _numbers(documents):
        spans = spans_of(documents, numbers[0] - 1, numbers[-1])
        for number, document in _each(documents, numbers):
            if isinstance(document, StoreDamaged):
                yield document.sentence
                continue
            if number not in spans:
                yield Message("document {id} has no part", id=ascii(document.id))
            length = len(document.text)
            for _, span in spans.get(number, []):
                if not 0 <= span.begin <= span.end <= length:
                    yield misplaced(document.id, span, length)


def _numbers(documents: Documents) -> Iterator[list[int]]:
    """Yield the numbers of all documents in order, some at a time."""
    query = "SELECT number FROM documents WHERE number > ? ORDER BY number LIMIT ?"
    after = 0
    while rows := documents.database.rows(query, (after, ROWS)):
        numbers = [number for (number,) in ascending(rows, after, documents.database.path)]
        yield numbers
        after = numbers[-1]


def _each(
    documents: Documents, numbers: Sequence[int]
) -> Iterator[tuple[int, Document | StoreDamaged]]:
    """Yield documents by their numbers, one at a time, and the error in place of a damaged one."""
    for number in numbers:
        try:
            ((_, document),) = documents.page(number - 1, 1)
        except StoreDamaged as error:
            yield number, error
        else:
            yield number, document


def misplaced(id: str, span: Span, length: int) -> Message:
    """Return the fault of a chunk that lies outside of its document."""
    return Message(
        "document {id}: part {begin} to {end} is outside its {length} characters",
        id=ascii(id),
        begin=span.begin,
        end=span.end,
        length=length,
    )


def _of_filters(documents: Documents) -> Iterator[Message]:
    """Compare the rows that filters read with the documents' metadata, which has a checksum."""
    number_of = itemgetter(0)
    with documents.database.reading() as reader:
        # subtle: SQLite sorts them in a file of its own, so memory stays small.
        rows = reader.execute("SELECT document, key, value FROM attributes ORDER BY document")
        stored = ((number, [row[1:] for row in some]) for number, some in groupby(rows, number_of))
        given = (each for some in _numbers(documents) for each in _each(documents, some))
        both = merge(stored, given, key=number_of)
        for number, entries in groupby(both, number_of):
            yield from _of_rows(number, [entry for _, entry in entries])


def _of_rows(
    number: int, entries: Sequence[Document | StoreDamaged | list[Row]]
) -> Iterator[Message]:
    """Compare what is stored for filters under one number with the document of that number."""
    rows = {row for entry in entries if isinstance(entry, list) for row in entry}
    sound = [entry for entry in entries if isinstance(entry, Document)]
    if not any(not isinstance(entry, list) for entry in entries):
        yield Message("filters read rows of document number {number}, which is gone", number=number)
    for document in sound:
        wanted = set(attributes(document.metadata))
        for found, template in (
            (wanted - rows, "document {id}: filters miss {key} = {value} of its metadata"),
            (rows - wanted, "document {id}: filters read {key} = {value}, not of its metadata"),
        ):
            for key, value in sorted(found, key=repr):
                yield Message(template, id=ascii(document.id), key=_shown(key), value=_shown(value))


def _shown(value: SqlValue) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def spans_of(documents: Documents, after: int, last: int) -> dict[int, list[tuple[int, Span]]]:
    """Return labels and spans of the chunks of documents with these numbers, by number, in order."""
    rows = documents.database.rows(
        "SELECT document, label, begin, end FROM parts WHERE document > ? AND document <= ?"
        " ORDER BY label",
        (after, last),
    )
    found: dict[int, list[tuple[int, Span]]] = {}
    for number, label, begin, end in rows:
        found.setdefault(number, []).append((label, Span(begin, end)))
    return found


def _of_vectors(documents: Documents) -> Iterator[Message]:
    for labels in _batches(documents.labels()):
        try:
            good = bool(usable(documents.vectors(labels)).all())
        except StoreDamaged:
            good = False
        for label in () if good else labels:
            try:
                (good,) = usable(documents.vectors(np.array([label])))
            except StoreDamaged as error:
                yield error.sentence
                continue
            if not good:
                yield Message("part {label} has a vector that no model gives", label=label)


def _of_words(documents: Documents) -> Iterator[Message]:
    parts, words = "SELECT label FROM parts", "SELECT rowid FROM words"
    for query, template in (
        (f"{parts} EXCEPT {words}", "part {label} is missing in the index of words"),
        (f"{words} EXCEPT {parts}", "part {label} is in the index of words only"),
    ):
        for (label,) in documents.database.rows(f"{query} LIMIT {MOST_FAULTS}"):
            yield Message(template, label=label)
    with documents.transaction():
        # Raises where the index of words contradicts itself.
        documents.database.writer.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def _of_terms(documents: Documents) -> Iterator[Message]:
    """Compare the index of words with the texts; it keeps no texts, so SQLite cannot."""
    with documents.database.reading() as reader:
        reader.execute(INSTANCES)
        # subtle: SQLite gives them by term. So each part is a sum, which depends on no order.
        found: dict[int, int] = {}
        for label, term, place in reader.execute("SELECT doc, term, offset FROM temp.instances"):
            found[label] = found.get(label, 0) + hash((term, place))
        lengths: dict[int, bytes] = dict(reader.execute("SELECT id, sz FROM words_docsize"))
        n_chunks = n_terms = 0
        for label, words in words_of_all(reader):
            terms = words.split()
            n_chunks, n_terms = n_chunks + 1, n_terms + len(terms)
            wanted = sum(hash((term, place)) for place, term in enumerate(terms))
            if found.get(label, 0) != wanted or lengths.get(label) != _packed(len(terms)):
                yield Message("part {label} is indexed by other words than its own", label=label)
        ((sums,),) = reader.execute("SELECT block FROM words_data WHERE id = 1")
        # Before the first chunk it is empty.
        if (sums or n_chunks) and sums != _packed(n_chunks) + _packed(n_terms):
            yield Message("the index of words has another number of words than the parts")


def _packed(number: int) -> bytes:
    """Return a number as SQLite packs it: seven bits a byte, all bytes but the last marked."""
    packed = [number & 0x7F]
    while number := number >> 7:
        packed.insert(0, number & 0x7F | 0x80)
    return bytes(packed)


def _of_index(home: Path, make: IndexMaker) -> Iterator[Message]:
    with closing(Documents(home / DATABASE_FILE, None)) as documents:
        snapshot = home / SNAPSHOT_FILE
        if snapshot.exists():
            try:
                make.load(snapshot, documents.info.dimension, documents.identity)
            except BadSnapshot as error:
                yield Message("{error}; no document is lost: the index is rebuilt", error=error)
    with closing(Collection(home, make)) as collection:
        stored = collection.documents.labels()
        if not np.array_equal(np.sort(collection.index.labels), stored):
            yield Message("the index has other labels than the database")
            return
        sample = stored[:: max(len(stored) // SAMPLE, 1)]
        vectors = collection.documents.vectors(sample)
        for place, (label, vector) in enumerate(zip(sample, vectors, strict=True)):
            hits = collection.index.search(
                vector[None], 1, Selection.of_labels(sample[place, None])
            )
            if vector.any() and not (hits.labels[0] == label and hits.scores[0] > OWN_COSINE):
                yield Message("part {label} is not found by its own vector", label=label)


def _batches(labels: Labels) -> Iterator[Labels]:
    return (labels[start : start + ROWS] for start in range(0, len(labels), ROWS))
