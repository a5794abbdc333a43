"""The tables of a collection, and how files of older versions become files of this one."""

import json
import unicodedata
import uuid
import zlib
from collections.abc import Mapping

from server.store.database import Connection
from server.store.filter_sql import attributes
from server.store.lexical import TOKENIZER, indexed

SCHEMA_VERSION = 2

# The words of each part under its label. The index keeps none of what it has read, which would be
# half as much again as the vectors: to forget a part it is shown the very same words a second time,
# so WORDS_RECIPE says how they were made, and words made otherwise are all made anew.
WORDS = (
    f"CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = '{TOKENIZER}')",
    "CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)",
)
# Changes with anything that changes what `lexical.indexed` makes of a text.
WORDS_RECIPE = f"pairs-2, Unicode {unicodedata.unidata_version}"

# AUTOINCREMENT is what keeps a number or a label from being used twice. STRICT, and the vector's
# length in bytes: a row of another shape would be found only when the index is rebuilt, too late.
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
    """Make the tables of a new file, inside a transaction; `meta` needs "dimension"."""
    _tables(writer, int(meta["dimension"]))
    rows = {**meta, "identity": str(uuid.uuid4()), "words": WORDS_RECIPE}
    writer.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def migrate(writer: Connection, version: int) -> None:
    """Bring a file of an older version to this one, inside a transaction."""
    assert version == 1, f"no file of version {version} was ever written"
    _from_1(writer)


def _tables(writer: Connection, dimension: int) -> None:
    for statement in SCHEMA:
        writer.execute(statement.format(vector_bytes=4 * dimension))


def _from_1(writer: Connection) -> None:
    """Version 1 had one vector a document in one table, no filters, and no search for words.

    Labels stay as they are, so that a snapshot of the index stays good.
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
        insert_part(writer, label, label, 0, len(text), vector, words_of(title, text))
    if last is not None:
        # A label is never used twice, also not one whose document is long gone.
        for table in ("documents", "parts"):
            writer.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            writer.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last[0]))
    writer.execute("DROP TABLE old_documents")
    writer.execute("DROP TABLE old_meta")


def insert_part(
    writer: Connection,
    label: int | None,
    document: int,
    begin: int,
    end: int,
    vector: bytes,
    words: str,
) -> int:
    """Store one part of a document and its words; returns its label."""
    checksum = part_checksum(document, begin, end, vector)
    cursor = writer.execute(
        "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
        (label, document, begin, end, vector, checksum),
    )
    assert cursor.lastrowid is not None
    label = cursor.lastrowid
    writer.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (label, words))
    return label


def forget_words(writer: Connection, label: int, words: str) -> None:
    writer.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (label, words))


def remake_words(writer: Connection) -> None:
    """Make the index of words anew, inside a transaction."""
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
    """What the index for words reads of a part: its document's title and its own text."""
    return indexed(text if title is None else f"{title}\n{text}")


def document_checksum(id: str, text: str, title: str | None, metadata: str) -> int:
    whole = "\0".join((id, "" if title is None else "+" + title, metadata, text))
    return zlib.crc32(whole.encode())


def part_checksum(document: int, begin: int, end: int, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{document} {begin} {end}".encode()))
