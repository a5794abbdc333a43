"""What a failed call of PostgreSQL means: that it is away, refuses, or that the call is tried once more.

By SQLSTATE, the five characters that every error of PostgreSQL has. Nothing here touches a connection.
"""

from collections.abc import Mapping
from typing import Literal

Meaning = Literal["again", "away", "refused"]

# Two transactions met; one of them was undone and runs again.
AGAIN = frozenset({"40001", "40P01"})
# Of whole classes: connections, resources (connections, memory, disk), operators who intervene, the system below.
AWAY_CLASSES = frozenset({"08", "53", "57", "58"})
# The session leads to a standby. Another server has become the primary, and a new session may find that.
READ_ONLY = "25006"
AWAY = frozenset(
    {
        READ_ONLY,
        "25P03",  # idle too long in a transaction
        "25P04",  # a transaction took too long
        "55P03",  # a lock was not free in time
    }
)
# Of AWAY_CLASSES: the database was dropped; an extension's file is not there; too many parameters or columns.
REFUSED = frozenset({"57P04", "58P01", "54000"})
NO_RIGHTS, NO_TABLE, NO_SCHEMA, NO_DATABASE = "42501", "42P01", "3F000", "3D000"
WRONG_LOGIN = frozenset({"28000", "28P01"})
DUPLICATE = "23505"


def meaning(state: str) -> Meaning:
    """Return what a SQLSTATE means for the call that failed."""
    if state in AGAIN:
        return "again"
    if state in REFUSED:
        return "refused"
    return "away" if state in AWAY or state[:2] in AWAY_CLASSES else "refused"


def advice(state: str, place: Mapping[str, str]) -> str:
    """Return what to do about a refusal, as the end of a sentence; empty where nothing is known.

    place: user and database of the session.
    """
    user, database = place["user"], place["database"]
    if state == NO_RIGHTS:
        return (
            f'; an administrator grants what it takes: GRANT CREATE ON DATABASE "{database}" TO "{user}";'
            " and makes this user the owner of the collections that are there"
        )
    if state in (NO_TABLE, NO_SCHEMA):
        return "; the collection was removed or changed by another program"
    if state == NO_DATABASE:
        return f'; an administrator makes it: CREATE DATABASE "{database}" OWNER "{user}" ENCODING \'UTF8\''
    if state in WRONG_LOGIN:
        return "; check the user in the address, the secret, and pg_hba.conf of the server"
    if state == DUPLICATE:
        return (
            "; labels of this write are there already, as after a restore of an older data folder"
        )
    return ""
