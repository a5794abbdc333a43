"""Functions of filters that SQLite lacks, for a connection that evaluates them."""

from sqlite3 import Connection

from server.store.filters.instants import instant


def register(connection: Connection) -> None:
    """Let statements of this connection call the functions of filters."""
    for name, n_arguments, function in (
        ("instant", 1, instant),
        ("has_part", 3, has_part),
        ("begins", 2, begins),
    ):
        connection.create_function(name, n_arguments, function, deterministic=True)


def has_part(text: str, part: str, most: int) -> bool:
    """Return whether a text has this part among its first `most` characters; 0 for all of them."""
    return part in (text[:most] if most else text)


def begins(text: str, prefix: str) -> bool:
    """Return whether a text begins like this."""
    return text.startswith(prefix)
