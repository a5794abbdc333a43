"""The extension pgvector: found in the database, or installed there where this user may."""

import re
from typing import NamedTuple

from server.databases.postgres.login import Login
from server.databases.postgres.pool import Pool
from server.databases.postgres.session import Session
from server.errors import DatabaseRefused

OLDEST_SERVER = 14  # for numerics that are infinite
OLDEST = (0, 8)  # for searches of an index that go on while a filter drops rows
ENCODING = "UTF8"


class Extension(NamedTuple):
    """pgvector in a database. server, version: of PostgreSQL and of pgvector. schema: where its types are."""

    server: str
    version: str
    schema: str

    def __str__(self) -> str:
        return f"PostgreSQL {self.server}, pgvector {self.version}"


def prepared(pool: Pool, login: Login) -> Extension:
    """Return the extension, after it was installed if it was not; raises DatabaseRefused with what it takes."""
    found = pool.read(lambda session: _found(session, login))
    if found is None:
        try:
            pool.write(lambda session: session.rows("CREATE EXTENSION IF NOT EXISTS vector"))
        except DatabaseRefused as error:
            raise DatabaseRefused(
                f"{login.place} has no extension vector (pgvector); an administrator installs the package"
                " pgvector of the server's version, and runs in this database: CREATE EXTENSION vector;"
                f" ({error.message})"
            ) from None
        found = pool.read(lambda session: _found(session, login))
        assert found is not None
    return found


def _found(session: Session, login: Login) -> Extension | None:
    (number, server, encoding), *_ = session.rows(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),"
        " pg_catalog.getdatabaseencoding()"
    )
    if number // 10_000 < OLDEST_SERVER:
        raise DatabaseRefused(
            f"{login.place} is version {server}; version {OLDEST_SERVER} or a newer one is needed"
        )
    if encoding != ENCODING:
        raise DatabaseRefused(
            f"{login.place} keeps texts in {encoding}, which lacks characters; make a database with ENCODING"
            f" '{ENCODING}' TEMPLATE template0"
        )
    rows = session.rows(
        "SELECT e.extversion, n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n"
        " ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    )
    if not rows:
        return None
    version, schema = rows[0]
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise DatabaseRefused(
            f"{login.place} has pgvector {version}; version {'.'.join(map(str, OLDEST))} or a newer one is needed:"
            " an administrator installs it, and runs in this database: ALTER EXTENSION vector UPDATE;"
        )
    return Extension(server, version, schema)
