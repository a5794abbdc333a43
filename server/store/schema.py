"""The tables of a collection, what their rows hold, and how files of older versions are migrated."""

import json
import re
import unicodedata
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from server.errors import InvalidRequest
from server.store.filters.sql import attributes
from server.store.lexical import TOKENIZER
from server.store.passages.outline import OUTLINE
from server.store.passages.words import ChunkWords
from server.store.records import ChunkRules, Document, Info
from server.store.sqlite.database import Connection, in_memory
from server.store.sqlite.stored_text import stored, unpacked
from server.store.vector_blob import blob_bytes, from_float32
from server.store.words.bases import SNOWBALL

SCHEMA_VERSION = 4
# Numbers of a vector. No model gives nearly as many.
MAX_DIMENSION = 65_536

# The words of each chunk under its label. The index does not keep the texts that it reads, which would
# take half as much again as the vectors. To remove a chunk it must be given the very same words again,
# so WORDS_RECIPE says how they were made, and words of another recipe are all rebuilt.
WORDS = (
    f"CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = '{TOKENIZER}')",
    "CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)",
)
# Changes with anything that changes what `lexical.indexed` makes of a text, or what it is given.
WORDS_RECIPE = f"pairs-5, {OUTLINE}, Unicode {unicodedata.unidata_version}, Snowball {SNOWBALL}"

# AUTOINCREMENT keeps a number or a label from being used twice. STRICT and the check of the vector's
# length: a row of another shape would be noticed only when the index is rebuilt, too late.
# checksum: SQLite has none of its own, so a damaged page could pass as another text or vector.
PARTS = (
    """CREATE TABLE parts (
        label INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL REFERENCES documents (number),
        begin INTEGER NOT NULL,
        end INTEGER NOT NULL,
        vector BLOB NOT NULL CHECK (length(vector) = {vector_bytes}),
        checksum INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX parts_of_document ON parts (document)",
)
# text: as `stored_text` keeps it, a text or bytes.
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        text ANY NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT""",
    *PARTS,
    # value has no type: numbers compare as numbers and texts as texts.
    """CREATE TABLE attributes (
        key TEXT NOT NULL,
        value NOT NULL,
        document INTEGER NOT NULL,
        PRIMARY KEY (key, value, document)
    ) WITHOUT ROWID""",
    *WORDS,
)

# Version 1 kept one vector a document, in the same table.
SCHEMA_1 = (
    SCHEMA[0],
    """CREATE TABLE documents (
        label INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        vector BLOB NOT NULL CHECK (length(vector) = {vector_bytes})
    ) STRICT""",
)
# Versions 2 and 3 had the same tables, with texts only as they are; version 2 had vectors in float32.
TEXT_OF_3, TEXT_NOW = " text TEXT NOT NULL", " text ANY NOT NULL"
SCHEMA_3 = tuple(statement.replace(TEXT_NOW, TEXT_OF_3) for statement in SCHEMA)
SCHEMAS = {1: SCHEMA_1, 2: SCHEMA_3, 3: SCHEMA_3, 4: SCHEMA}
# What SQLite's own ANALYZE makes, which someone may have run.
STATISTICS = (
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
)


def create(writer: Connection, meta: Mapping[str, str]) -> None:
    """Create the tables of a new file, inside a transaction; `meta` needs "dimension"."""
    _tables(writer, int(meta["dimension"]))
    rows = {**meta, "identity": str(uuid.uuid4()), "words": WORDS_RECIPE}
    writer.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def migrate(writer: Connection, version: int) -> None:
    """Bring a file of an older version to this one, inside a transaction."""
    assert version in SCHEMAS, f"there is no migration from version {version}"
    if version == 1:
        return _from_1(writer)
    if version == 2:
        _from_2(writer)
    _from_3(writer)


def _tables(writer: Connection, dimension: int, statements: Iterable[str] = SCHEMA) -> None:
    for statement in statements:
        writer.execute(statement.format(vector_bytes=blob_bytes(dimension)))


# --- objects of other programs ------------------------------------------------------------------------


class Made(NamedTuple):
    """An object of a database: its name and kind, the table it belongs to, and how it was created."""

    name: str
    kind: str
    table: str
    statement: str


OBJECTS = "SELECT name, type, tbl_name, sql FROM sqlite_master"


def foreign_objects(rows: Iterable[Sequence[Any]], version: int) -> list[str]:
    """Return the names of objects that a file of this version should not have, or not in this form.

    rows: what OBJECTS selects. A trigger, view or index of another program would run, or answer, when
    the server reads and writes. Reading the list of objects runs none of them.
    """
    # subtle: every row counts by itself. A trigger may have the name of a table.
    expected = _expected(version)
    return [made.name for made in _made(rows) if made not in expected]


def missing_tables(rows: Iterable[Sequence[Any]], version: int) -> list[str]:
    """Return the names of tables that a file of this version should have; `rows` as above."""
    missing = _expected(version) - set(_made(rows))
    # SQLite and FTS5 create their own, and not in all versions the same.
    named = (made.name for made in missing if made.kind == "table")
    return sorted(name for name in named if not name.startswith(("sqlite_", "words_")))


@cache
def _expected(version: int) -> frozenset[Made]:
    with in_memory() as connection:
        for statement in SCHEMAS[version]:
            connection.execute(statement.format(vector_bytes=0))
        made = _made(connection.execute(OBJECTS))
    names = [sql.split()[2].partition("(")[0] for sql in STATISTICS]
    statistics = [
        Made(name, "table", name, sql) for name, sql in zip(names, STATISTICS, strict=True)
    ]
    return frozenset([*made, *statistics])


def _made(rows: Iterable[Sequence[Any]]) -> list[Made]:
    return [Made(name, kind, table, _plain(name, sql or "")) for name, kind, table, sql in rows]


def _plain(name: str, sql: str) -> str:
    """Return a statement without what may differ: blanks, the dimension, and how words are indexed.

    The index of words is created again where a version changes it, and its own tables are FTS5's,
    whose statements depend on the version of SQLite.
    """
    if name.startswith("words_"):
        return ""
    plain = re.sub(r"length\(vector\) = \d+", "length(vector)", " ".join(sql.split()))
    return plain.partition("(")[0] if plain.startswith("CREATE VIRTUAL") else plain


# --- older versions -----------------------------------------------------------------------------------


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
        insert_document(writer, label, (id, text, title, metadata))
        blob = from_float32(vector)
        insert_chunk(writer, label, label, 0, len(text), blob, words_of(title, text))
    if last is not None:
        # A label is never used twice, not even one whose document was deleted long ago.
        for table in ("documents", "parts"):
            writer.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            writer.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last[0]))
    writer.execute("DROP TABLE old_documents")
    writer.execute("DROP TABLE old_meta")


def _from_2(writer: Connection) -> None:
    """Migrate version 2: vectors in float32. Labels do not change, nor do words."""
    (dimension,) = writer.execute("SELECT value FROM meta WHERE key = 'dimension'").fetchone()
    given = writer.execute("SELECT seq FROM sqlite_sequence WHERE name = 'parts'").fetchone()
    writer.execute("DROP INDEX IF EXISTS parts_of_document")
    writer.execute("ALTER TABLE parts RENAME TO old_parts")
    _tables(writer, int(dimension), PARTS)
    rows = writer.execute("SELECT label, document, begin, end, vector, checksum FROM old_parts")
    for label, document, begin, end, vector, checksum in rows:
        blob = from_float32(vector)
        # A damaged row stays one that its checksum does not fit.
        damaged = not is_sound_chunk(document, begin, end, vector, checksum)
        marked = chunk_checksum(document, begin, end, blob) ^ damaged
        row = (label, document, begin, end, blob, marked)
        writer.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)", row)
    if given is not None:
        writer.execute("DELETE FROM sqlite_sequence WHERE name = 'parts'")
        writer.execute("INSERT INTO sqlite_sequence VALUES ('parts', ?)", given)
    writer.execute("DROP TABLE old_parts")


def _from_3(writer: Connection) -> None:
    """Migrate version 3: a text may be packed. Those that are stored stay as they are.

    Only the declared type of a column changes, and no row: SQLite's own instructions for that are to
    change the statement that created the table.
    """
    ((schema,),) = writer.execute("PRAGMA schema_version")
    writer.execute("PRAGMA writable_schema = ON")
    try:
        writer.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'documents'",
            (TEXT_OF_3, TEXT_NOW),
        )
        # Connections read the statements again, this one too.
        writer.execute(f"PRAGMA schema_version = {schema + 1}")
    finally:
        writer.execute("PRAGMA writable_schema = RESET")


# --- rows -------------------------------------------------------------------------------------------------

DocumentRow = tuple[str, str, str | None, str]  # id, text as it is, title, metadata


def insert_document(writer: Connection, number: int | None, row: DocumentRow) -> int:
    """Store a document without its chunks, and the rows that filters read; returns its number."""
    id, text, title, metadata = row
    cursor = writer.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
        (number, id, stored(text), title, metadata, document_checksum(*row)),
    )
    assert cursor.lastrowid is not None
    number = cursor.lastrowid
    writer.executemany(
        "INSERT INTO attributes VALUES (?, ?, ?)",
        [(*pair, number) for pair in attributes(json.loads(metadata))],
    )
    return number


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
    for label, words in words_of_all(writer):
        writer.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (label, words))
    writer.execute("INSERT OR REPLACE INTO meta VALUES ('words', ?)", (WORDS_RECIPE,))


def words_of_all(connection: Connection) -> Iterator[tuple[int, str]]:
    """Yield the label of each chunk, and what the index of words reads of it."""
    rows = connection.execute(
        "SELECT label, number, title, text, begin, end FROM parts JOIN documents ON number = document"
    )
    last, words = None, ChunkWords(None, "")
    for label, number, title, text, begin, end in rows:
        # The chunks of a document were stored together, and its outline is made once.
        if number != last:
            last, words = number, ChunkWords(title, unpacked(text))
        yield label, words.of(begin, end)


def words_of(title: str | None, text: str) -> str:
    """Return what the index of words reads of a document in one chunk."""
    return ChunkWords(title, text).of(0, len(text))


def document_checksum(id: str, text: str, title: str | None, metadata: str) -> int:
    whole = "\0".join((id, "" if title is None else "+" + title, metadata, text))
    return zlib.crc32(whole.encode())


def chunk_checksum(document: int, begin: int, end: int, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{document} {begin} {end}".encode()))


def is_sound_document(row: DocumentRow, checksum: int) -> bool:
    """Return whether the columns of a document are those that its checksum was made of."""
    try:
        return document_checksum(*row) == checksum
    except TypeError:
        # In a damaged row a text may be a number, or nothing.
        return False


def is_sound_chunk(document: int, begin: int, end: int, vector: bytes, checksum: int) -> bool:
    """Return whether the columns of a chunk are those that its checksum was made of."""
    try:
        return chunk_checksum(document, begin, end, vector) == checksum
    except TypeError:
        return False


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


def document_row(document: Document) -> DocumentRow:
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
