"""The tables of a collection: a schema of its own in the database, with the name of the collection.

    inkwell_collection   one row: what the collection is, the version of its tables, and counts of the others
    documents            a row a document; metadata is the JSON text as it was given
    attributes           a row for each scalar of metadata, for filters; see `filters`
    chunks               a row a chunk: its characters and bytes in the document, and its vector
    terms                a row for each term of a chunk, for BM25
    readable             a view of documents as texts, for people and other programs

The row of inkwell_collection is locked by every write, so writes to one collection follow one another. Rows refer
to each other without foreign keys: one check a term would be most of the time of a write, and all writes go
through here.
"""

import json
from collections.abc import Sequence

from server.databases.postgres.session import Session
from server.errors import DatabaseRefused
from server.store.records import ChunkRules, Info

# The table by which a schema is known to be a collection.
MARK = "inkwell_collection"
# Bytes of an identifier; PostgreSQL cuts what is longer.
LONGEST_NAME = 63
# Dimensions of a vector that an index takes in halves, and that the table takes.
MAX_INDEXED, MAX_STORED = 4_000, 16_000
# Vectors up to here lie in the row itself, which a scan reads faster: a row has room for 8 kB.
MAX_INLINE = 1_900

# subtle: 8-byte columns first, so that none is padded.
TABLES = """
CREATE TABLE {schema}.inkwell_collection (
    version integer NOT NULL,
    info text NOT NULL,
    documents bigint NOT NULL,
    chunks bigint NOT NULL,
    terms bigint NOT NULL,
    id boolean PRIMARY KEY DEFAULT true CHECK (id)
);
CREATE TABLE {schema}.documents (
    number bigint PRIMARY KEY,
    id_instant bigint,
    title_instant bigint,
    id bytea NOT NULL UNIQUE,
    digest text NOT NULL,
    title bytea,
    metadata text NOT NULL,
    text bytea NOT NULL
);
CREATE TABLE {schema}.attributes (
    document bigint NOT NULL,
    instant bigint,
    kind smallint NOT NULL,
    head smallint,
    key bytea NOT NULL,
    number numeric,
    text bytea
);
CREATE INDEX ON {schema}.attributes (document);
CREATE INDEX ON {schema}.attributes (key, kind, number, text) INCLUDE (document);
CREATE INDEX ON {schema}.attributes (key, instant) INCLUDE (document) WHERE instant IS NOT NULL;
CREATE TABLE {schema}.chunks (
    label bigint PRIMARY KEY,
    document bigint NOT NULL,
    span_begin integer NOT NULL,
    span_end integer NOT NULL,
    bytes_begin integer NOT NULL,
    bytes_end integer NOT NULL,
    terms integer NOT NULL,
    direction vector({dimension}) NOT NULL,
    given vector({dimension})
);
ALTER TABLE {schema}.chunks ALTER COLUMN direction SET STORAGE {storage};
CREATE INDEX ON {schema}.chunks (document);
CREATE TABLE {schema}.terms (
    label bigint NOT NULL,
    occurrences integer NOT NULL,
    chunk_terms integer NOT NULL,
    term bytea NOT NULL
);
CREATE INDEX ON {schema}.terms (term, label) INCLUDE (occurrences, chunk_terms);
CREATE INDEX ON {schema}.terms (label);
CREATE VIEW {schema}.readable AS SELECT number, {id} AS id, {title} AS title, {text} AS text, metadata
    FROM {schema}.documents;
"""
# A text with NUL is none for PostgreSQL: the view leaves it out.
READABLE = (
    "CASE WHEN position('\\x00'::bytea IN {column}) = 0 THEN convert_from({column}, 'UTF8') END"
)
INDEX = """
CREATE INDEX {name} ON {schema}.chunks USING hnsw ((direction::halfvec({dimension})) halfvec_ip_ops);
"""
VECTOR_INDEX = "nearest"

# What brings the tables of a version to the next one; the first is of version 1. Each is SQL with {schema}.
MIGRATIONS: Sequence[str] = ()
VERSION = 1 + len(MIGRATIONS)


def quoted(name: str) -> str:
    """Return an identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def tables(info: Info) -> str:
    """Return SQL that makes the tables and indexes of a collection."""
    columns = {name: READABLE.format(column=name) for name in ("id", "title", "text")}
    fields = {
        "schema": quoted(info.name),
        "dimension": info.dimension,
        "name": VECTOR_INDEX,
    }
    storage = "PLAIN" if info.dimension <= MAX_INLINE else "EXTERNAL"
    sql = TABLES.format(**fields, **columns, storage=storage)
    return sql + INDEX.format(**fields) if info.dimension <= MAX_INDEXED else sql


def check_name(name: str) -> None:
    """Raise DatabaseRefused for a name that PostgreSQL would cut, or that belongs to itself."""
    if len(name.encode()) > LONGEST_NAME:
        raise DatabaseRefused(
            f"PostgreSQL takes names of {LONGEST_NAME} bytes, and {name!r} has {len(name.encode())};"
            " choose a shorter prefix"
        )
    if name.startswith("pg_"):
        raise DatabaseRefused(
            f"PostgreSQL keeps names that begin with pg_ for itself, such as {name!r}; choose another prefix"
        )


def described(info: Info) -> str:
    """Return what is stored of an Info; ASCII."""
    rules = info.chunks
    return json.dumps(
        {
            "fingerprint": info.fingerprint,
            "dimension": info.dimension,
            "chunks": None if rules is None else {"size": rules.size, "overlap": rules.overlap},
        }
    )


def info_of(name: str, stored: str) -> Info:
    """Return the Info of what `described` returned; raises DatabaseRefused for anything else."""
    try:
        found = json.loads(stored)
        rules = found["chunks"]
        chunks = None if rules is None else ChunkRules(rules["size"], rules["overlap"])
        return Info(name, found["fingerprint"], found["dimension"], chunks)
    except (ValueError, KeyError, TypeError) as error:
        raise DatabaseRefused(
            f"the collection {name!r} in PostgreSQL has a description that cannot be read"
            f" ({type(error).__name__}); another program changed it"
        ) from None


def stored_info(session: Session, name: str) -> tuple[Info, int] | None:
    """Return the Info of a collection and the version of its tables; None where there is none by this name."""
    if not session.rows(
        "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2",
        name,
        MARK,
    ):
        return None
    rows = session.rows(f"SELECT info, version FROM {quoted(name)}.{MARK}")
    if not rows:
        raise DatabaseRefused(f"the collection {name!r} in PostgreSQL has lost its description")
    return info_of(name, rows[0][0]), rows[0][1]


def is_taken(session: Session, name: str) -> bool:
    """Return whether there is a schema of this name."""
    found = session.rows("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", name)
    return bool(found)


def names(session: Session) -> list[str]:
    """Return the names of all collections that this user can see."""
    return [
        row[0]
        for row in session.rows(
            "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
            " ON n.oid = c.relnamespace WHERE c.relname = $1 AND c.relkind = 'r'"
            " AND has_schema_privilege(n.oid, 'USAGE') ORDER BY n.nspname",
            MARK,
        )
    ]


def drop(session: Session, name: str) -> None:
    """Remove a collection and all in it; does nothing where there is none. Another program's schema stays."""
    if stored_info(session, name) is not None:
        session.rows(f"DROP SCHEMA {quoted(name)} CASCADE")


def create(session: Session, info: Info) -> None:
    """Make a collection, or bring the tables of one that is there to this version; raises DatabaseRefused."""
    # Two that create at once would both find nothing. The lock ends with the transaction.
    session.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{MARK} {info.name}")
    found = stored_info(session, info.name)
    if found is None:
        if is_taken(session, info.name):
            raise DatabaseRefused(
                f"PostgreSQL has a schema {info.name!r} that is no collection of this server; rename it, or"
                " choose another prefix"
            )
        session.rows(f"CREATE SCHEMA {quoted(info.name)}")
        session.rows(tables(info))
        session.rows(
            f"INSERT INTO {quoted(info.name)}.{MARK} (version, info, documents, chunks, terms)"
            " VALUES ($1::integer, $2, 0, 0, 0)",
            VERSION,
            described(info),
        )
        return
    stored, version = found
    if stored != info:
        raise DatabaseRefused(
            f"PostgreSQL has a collection {info.name!r} of fingerprint {stored.fingerprint!r}, dimension"
            f" {stored.dimension} and chunks {stored.chunks}, not of {info.fingerprint!r}, {info.dimension} and"
            f" {info.chunks}; remove it, or give this one another name"
        )
    migrate(session, info.name, version)


def migrate(session: Session, name: str, version: int) -> None:
    """Bring the tables of a collection from a version to this one; raises DatabaseRefused for a newer one."""
    if version > VERSION:
        raise DatabaseRefused(
            f"the collection {name!r} in PostgreSQL has tables of version {version}, and this server knows"
            f" versions up to {VERSION}; upgrade the server"
        )
    for sql in MIGRATIONS[version - 1 :]:
        session.rows(sql.format(schema=quoted(name)))
    if version < VERSION:
        session.rows(f"UPDATE {quoted(name)}.{MARK} SET version = $1::integer", VERSION)
