"""Whether the collection in a database is the one that this server has on record.

A model of the same size gives vectors that would be compared without an error. So before the first call of a
process reads or writes, what the database says of the collection is compared with the record.
"""

from dataclasses import replace

from server.databases.database import VectorDatabase
from server.databases.outbox import Record
from server.errors import DatabaseRefused, OtherModel
from server.store.records import Info


class Contact:
    """The description of a collection in its database, checked once."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._there = replace(record.info, name=record.there)
        self._is_checked = False

    def info(self, database: VectorDatabase) -> Info:
        """Return what the calls of a database take; raises OtherModel or DatabaseRefused. From any thread."""
        if not self._is_checked:
            check_same(self._record, database.info(self._record.there))
            self._is_checked = True
        return self._there


def check_same(record: Record, found: Info | None) -> None:
    """Raise an error unless this is what a record says of its collection."""
    name, wanted = record.info.name, replace(record.info, name=record.there)
    if found is None:
        raise DatabaseRefused(
            f"collection {name!r} is no longer there (as {record.there!r}): restore it in the database, or"
            " delete it here and create it again"
        )
    if found.fingerprint != wanted.fingerprint or found.dimension != wanted.dimension:
        raise OtherModel(
            f"collection {name!r} holds vectors of model {found.fingerprint} with {found.dimension} numbers in"
            f" vector database {record.database!r}, and of {wanted.fingerprint} with {wanted.dimension} by the"
            " record of this server; serve that model and create the collection again, under another name or"
            " in another database"
        )
    if found != wanted:
        raise DatabaseRefused(
            f"collection {name!r} was made with chunks of {found.chunks} and not {wanted.chunks}; give the"
            " same chunks, or another name"
        )
