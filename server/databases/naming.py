"""Names of collections in a vector database: letters, digits and underscores, which every database takes."""

import hashlib
import re

PLAIN = re.compile(r"[a-z][a-z0-9_]{0,47}")
# What names made here begin with where the collection's own name has other characters.
HASHED = "collection_"
DIGITS = 20


def database_name(prefix: str, name: str) -> str:
    """Return the name of a collection in a database: the prefix, then the name or a hash of it.

    prefix: of all collections of this server, so that several servers share a database.
    """
    if PLAIN.fullmatch(name) and not name.startswith(HASHED):
        return f"{prefix}{name}"
    return f"{prefix}{HASHED}{hashlib.sha256(name.encode()).hexdigest()[:DIGITS]}"
