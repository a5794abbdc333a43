"""The tables of a collection, what their rows hold, and how files of older versions are migrated."""

import json
import unicodedata
import uuid
import zlib
from collections.abc import Mapping

from server.errors import InvalidRequest
from server.store.database import Connection
from server.store.filter_sql import attributes
from server.store.lexical import TOKENIZER, indexed
from server.store.records import ChunkRules, Document, Info, titled

SCHEMA_VERSION = 2
# Numbers of a vector. No model gives nearly as many.
MAX_DIMENSION = 65_536

# The words of each chunk under its label. The index does not keep the texts that it reads, which would
# take half as much again as the vectors. To remove a chunk it must be given the very same words again,
# so WORDS_RECIPE says how they were made, and words of another recipe are all rebuilt.
WORDS = (
    f"CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = '{TOKENIZER}')",
    "CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)",
)
# Changes with anything that changes what `lexical.indexed` makes of a text.
WORDS_RECIPE = f"pairs-2, Unicode {unicodedata.unidata_version}"

# AUTOINCREMENT keeps a number or a label from being used twice. STRICT and the check of the vector's
# length: a row of another shape would be noticed only when the index is rebuilt, too late.
# checksum: SQLite has none of its own, so a damaged page could pass as another text or vector.
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE parts (
        label INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL REFERENCES documents (number),
        begin INTEGER NOT NULL,
        end INTEGER NOT NULL,
        vector BLOB NOT NULL CHECK (length(vector) = {vector_bytes}),
        checksum INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX parts_of_document ON parts (document)",
    # value has no type: numbers compare as numbers and texts as texts.
    """CREATE TABLE attributes (
        key TEXT NOT NULL,
        value NOT NULL,
        document INTEGER NOT NULL,
        PRIMARY KEY (key, value, document)
    ) WITHOUT ROWID""",
    *WORDS,
)


def create(writer: Connection, meta: Mapping[str, str]) -> None:
    """Create the tables of a new file, inside a transaction; `meta` needs "dimension"."""
    _tables(writer, int(meta["dimension"]))
    rows = {**meta, "identity": str(uuid.uuid4()), "words": WORDS_RECIPE}
    writer.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def migrate(writer: Connection, version: int) -> None:
    """Bring a file of an older version to this one, inside a transaction."""
    assert version == 1, f"there is no migration from version {version}"
    _from_1(writer)


def _tables(writer: Connection, dimension: int) -> None:
    for statement in SCHEMA:
        writer.execute(statement.format(vector_bytes=4 * dimension))


def _from_1(writer: Connection) -> None:
    """Migrate version 1: one vector a document in one table, no filters, no search for words.

    Labels do not change, so that a snapshot of the index stays valid.
    """
    meta = dict(writer.execute("SELECT key, value FROM meta").fetchall())
    writer.execute("ALTER TABLE documents RENAME TO old_documents")
    writer.execute("ALTER TABLE meta RENAME TO old_meta")
    last = writer.execute("SELECT seq FROM sqlite_sequence WHERE name = 'old_documents'").fetchone()
    _tables(writer, int(meta["dimension"]))
    writer.execute("INSERT INTO meta SELECT * FROM old_meta")
    writer.execute("INSERT INTO meta VALUES ('words', ?)", (WORDS_RECIPE,))
    rows = writer.execute("SELECT label, id, text, title, metadata, vector FROM old_documents")
    for label, id, text, title, metadata, vector in rows:
        writer.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
            (label, id, text, title, metadata, document_checksum(id, text, title, metadata)),
        )
        writer.executemany(
            "INSERT INTO attributes VALUES (?, ?, ?)",
            [(*pair, label) for pair in attributes(json.loads(metadata))],
        )
        insert_chunk(writer, label, label, 0, len(text), vector, words_of(title, text))
    if last is not None:
        # A label is never used twice, not even one whose document was deleted long ago.
        for table in ("documents", "parts"):
            writer.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            writer.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last[0]))
    writer.execute("DROP TABLE old_documents")
    writer.execute("DROP TABLE old_meta")


def insert_chunk(
    writer: Connection,
    label: int | None,
    document: int,
    begin: int,
    end: int,
    vector: bytes,
    words: str,
) -> int:
    """Store one chunk of a document and its words; returns its label."""
    checksum = chunk_checksum(document, begin, end, vector)
    cursor = writer.execute(
        "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
        (label, document, begin, end, vector, checksum),
    )
    assert cursor.lastrowid is not None
    label = cursor.lastrowid
    writer.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (label, words))
    return label


def remove_words(writer: Connection, label: int, words: str) -> None:
    """Remove the words of a chunk, which are the very words that it was stored with."""
    writer.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (label, words))


def rebuild_words(writer: Connection) -> None:
    """Rebuild the index of words, inside a transaction."""
    writer.execute("DROP TABLE terms")
    writer.execute("DROP TABLE words")
    for statement in WORDS:
        writer.execute(statement)
    rows = writer.execute(
        "SELECT label, title, text, begin, end FROM parts JOIN documents ON number = document"
    )
    for label, title, text, begin, end in rows:
        words = words_of(title, text[begin:end])
        writer.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (label, words))
    writer.execute("INSERT OR REPLACE INTO meta VALUES ('words', ?)", (WORDS_RECIPE,))


def words_of(title: str | None, text: str) -> str:
    """Return what the index of words reads of a chunk: its document's title and its own text."""
    return indexed(titled(title, text))


def document_checksum(id: str, text: str, title: str | None, metadata: str) -> int:
    whole = "\0".join((id, "" if title is None else "+" + title, metadata, text))
    return zlib.crc32(whole.encode())


def chunk_checksum(document: int, begin: int, end: int, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{document} {begin} {end}".encode()))


def meta_of(info: Info) -> dict[str, str]:
    """Return the rows of `meta` that say what a collection is."""
    chunks = None if info.chunks is None else [info.chunks.size, info.chunks.overlap]
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "dimension": str(info.dimension),
        "chunks": json.dumps(chunks),
    }


def info_of(meta: Mapping[str, str]) -> Info:
    """Return what the rows of `meta` say of a collection; raises KeyError or ValueError for damage."""
    chunks = json.loads(meta.get("chunks", "null"))
    if chunks is None:
        rules = None
    elif isinstance(chunks, list) and [type(each) for each in chunks] == [int, int]:
        rules = ChunkRules(*chunks)
    else:
        raise ValueError(f"its chunks are {chunks!r:.80}")
    dimension = int(meta["dimension"])
    if not 1 <= dimension <= MAX_DIMENSION:
        raise ValueError(f"its dimension {dimension} is outside 1 to {MAX_DIMENSION}")
    return Info(meta["name"], meta["fingerprint"], dimension, rules)


def document_row(document: Document) -> tuple[str, str, str | None, str]:
    """Return the columns of a document; raises InvalidRequest for what cannot be stored."""
    name = ascii(document.id)
    try:
        metadata = json.dumps(document.metadata, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest(
            f"metadata of document {name} is not JSON: {error}", param="metadata"
        ) from None
    row = (document.id, document.text, document.title, metadata)
    for param, value in zip(("id", "text", "title", "metadata"), row, strict=True):
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{param} of document {name} has a lone surrogate at character {error.start},"
                " which is half a character and not text",
                param=param,
            ) from None
    return row
