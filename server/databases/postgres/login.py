"""How a PostgreSQL database is reached: read from its address, and checked before anything connects."""

import ipaddress
from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import unquote, urlsplit

from server.databases.address import Address
from server.errors import BadSettings

# As libpq's, without those that fall back to a connection in clear text: nobody would notice.
Encryption = Literal["disable", "require", "verify-ca", "verify-full"]
PORT = 5432
# Sessions at once, and the most that may be asked for: a server takes 100 by default, from all its clients.
SESSIONS, MAX_SESSIONS = 8, 64
APPLICATION = "inkwell"


@dataclass(frozen=True, slots=True)
class Login:
    """Where a database is and who asks.

    secret: the password, never shown. ca_file: certificates that vouch for the server; None for the system's.
    sessions: at most so many connections at once. timeout_s: the longest that one statement may take.
    """

    host: str
    port: int
    user: str
    database: str
    secret: str | None = field(repr=False)
    encryption: Encryption
    ca_file: str | None
    sessions: int
    timeout_s: float

    @property
    def place(self) -> str:
        """Return what messages call the database."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"PostgreSQL at {host}:{self.port}/{self.database}"


def login(address: Address) -> Login:
    """Return how to reach an address; raises BadSettings for what cannot be meant.

    Without sslmode, a server on this machine is asked in clear text, and any other must prove who it is.
    """
    parts = urlsplit(address.target)
    host, user = parts.hostname or "", unquote(parts.username or "")
    database = unquote(parts.path.removeprefix("/")) or user
    if not user or "/" in database:
        raise BadSettings(
            "the address {target} of a PostgreSQL database is not postgresql://USER@HOST:PORT/DATABASE",
            target=address.target,
        )
    options = address.options
    usual = "disable" if _is_here(host) else "verify-full"
    encryption = options.get("sslmode", usual)
    if encryption not in get_args(Encryption):
        raise BadSettings(
            "sslmode {mode!r} is not one of {modes}; allow and prefer are left out, because they may send"
            " everything in clear text",
            mode=encryption,
            modes=get_args(Encryption),
        )
    return Login(
        host,
        parts.port or PORT,
        user,
        database,
        address.secret,
        cast(Encryption, encryption),
        # The second is what libpq calls it.
        options.get("ca_file") or options.get("sslrootcert"),
        _sessions(options.get("sessions")),
        address.timeout_s,
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sessions(given: str | None) -> int:
    if given is None:
        return SESSIONS
    if not (given.isascii() and given.isdecimal() and 1 <= int(given[:9]) <= MAX_SESSIONS):
        raise BadSettings(
            "sessions {given!r} of a PostgreSQL database is not a whole number from 1 to {limit}",
            given=given,
            limit=MAX_SESSIONS,
        )
    return int(given)
