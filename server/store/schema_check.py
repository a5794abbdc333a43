"""Refuses a collection's file that holds objects of another program, also before it is migrated."""

from pathlib import Path

from server.errors import StoreDamaged
from server.store.schema import OBJECTS, foreign_objects, migrate, missing_tables
from server.store.sqlite.database import Connection


def upgrade(path: Path, writer: Connection, version: int) -> None:
    """Migrate a file of an older version, unless it has triggers or the like, which would run."""
    check_objects(path, writer, version)
    migrate(writer, version)


def check_objects(path: Path, connection: Connection, version: int) -> None:
    """Raise StoreDamaged where another program has made the file, or put something of its own into it."""
    objects = connection.execute(OBJECTS).fetchall()
    if foreign := foreign_objects(objects, version):
        raise StoreDamaged(
            "{path} has {objects}, which this server did not create: another program has changed the"
            " file; restore the collection from a backup",
            path=path,
            objects=tuple(map(ascii, foreign)),
        )
    if missing := missing_tables(objects, version):
        raise StoreDamaged(
            "{path} has no table {tables}: another program has changed the file; restore the collection"
            " from a backup",
            path=path,
            tables=tuple(missing),
        )
    ((encoding,),) = connection.execute("PRAGMA encoding")
    if encoding != "UTF-8":
        # SQLite orders texts by their bytes: filters would find others than they should.
        raise StoreDamaged(
            "{path} keeps its texts in {encoding}, not in UTF-8: another program has made the file;"
            " restore the collection from a backup",
            path=path,
            encoding=encoding,
        )
