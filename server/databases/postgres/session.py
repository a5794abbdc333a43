"""A session of PostgreSQL: one connection, used by one thread at a time. The only file that imports the client.

All settings are those of a transaction (SET LOCAL), so a session may also lead through PgBouncer, which hands
server connections from transaction to transaction.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from server import clock
from server.databases.postgres import failures
from server.databases.postgres.answers import AnswerTooLarge
from server.databases.postgres.encryption import Tls, is_refusal
from server.databases.postgres.login import APPLICATION, Login
from server.databases.postgres.tcp import connected
from server.errors import DatabaseAway, DatabaseBusy, DatabaseRefused, ServerError

Value = str | int | None
Rows = list[list[Any]]

# Beyond the time-out of a statement, which the server itself keeps: it answers then, and the session stays usable.
GRACE_S = 2.0
# Of a statement's time, how much may pass with waiting for a lock.
OF_LOCKS = 0.8
RETRY_AFTER_S = 5
# Bytes of a message of COPY.
PIECE = 1 << 16
SHOWN = 300
# Severities of errors after which the server ends the session.
ENDING = ("FATAL", "PANIC")


class Lost(Exception):
    """Raised where a session broke, in place of `away`. late: it did not answer in time."""

    def __init__(self, away: DatabaseAway, *, late: bool) -> None:
        super().__init__(away.message)
        self.away = away
        self.late = late


class Conflict(Exception):
    """Raised where a transaction was undone because of another one, and may run again."""


class Session:
    """An open connection. used_s: when it was last given back, by `clock.now`."""

    def __init__(self, login: Login, tls: Tls) -> None:
        """Connect and log in; raises Lost or DatabaseRefused."""
        self._login = login
        self.used_s = clock.now()
        self.is_broken = False
        with self._translated("connect"):
            self._connection = Connection(
                login.user,
                host=login.host,
                sock=connected(login, login.timeout_s + GRACE_S),
                database=login.database,
                password=login.secret or "",
                ssl_context=False if tls is None else tls,
                application_name=APPLICATION,
            )

    def rows(self, sql: str, *values: Value) -> Rows:
        """Return the rows of a statement. values: of $1, $2, ...; other statements may be several without any."""
        with self._translated("ask"):
            if values:
                return self._connection.execute_unnamed(sql, values).rows or []
            return self._connection.execute_simple(sql).rows or []

    def copy(self, table: str, columns: Sequence[str], lines: Iterable[str]) -> None:
        """Append rows to a table. table: quoted. lines: of `literals.line`."""
        sql = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        # Before the statement begins: whatever a row is refused for must not leave it half sent.
        pieces = list(_pieces(lines))
        with self._translated("write"):
            self._connection.execute_unnamed(sql, stream=pieces)

    @contextlib.contextmanager
    def transaction(self, *, writes: bool, settings: Mapping[str, str]) -> Iterator[None]:
        """Commit what the block does, or undo it where anything raises.

        A transaction that only reads sees one state of the database in all of its statements. One that writes sees
        at each statement what others committed before. settings: more of them, for this transaction alone.
        """
        kind = "READ COMMITTED" if writes else "REPEATABLE READ READ ONLY"
        milliseconds = int(self._login.timeout_s * 1000)
        known = {
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(int(milliseconds * OF_LOCKS)),
            "idle_in_transaction_session_timeout": str(milliseconds * 2),
            # Statements here are short, and some of long filters would take longer to compile than to run.
            "jit": "off",
            **settings,
        }
        local = "".join(f"; SET LOCAL {name} = {value}" for name, value in known.items())
        try:
            self.rows(f"BEGIN ISOLATION LEVEL {kind}{local}")
            yield
        except BaseException:
            self._undo()
            raise
        self.rows("COMMIT")

    def close(self) -> None:
        # The server also notices by itself when a connection is gone.
        with contextlib.suppress(Exception):
            self._connection.close()

    def _undo(self) -> None:
        if not self.is_broken:
            try:
                self.rows("ROLLBACK")
            except (Lost, Conflict, ServerError):
                self.is_broken = True

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn whatever the client raises into errors of this server."""
        try:
            yield
        except DatabaseError as error:
            raise self._answered(error) from None
        except (InterfaceError, OSError) as error:
            self.is_broken = True
            # subtle: after a refusal to log in, the client says goodbye, which may fail and hide the refusal.
            if isinstance(error.__context__, DatabaseError):
                raise self._answered(error.__context__) from None
            raise self._unanswered(error) from None
        except AnswerTooLarge as error:
            self.is_broken = True
            raise DatabaseRefused(f"{self._login.place}: {error}") from None
        except Exception as error:
            # What the client cannot read comes to light as any error: a code that it does not know, half a message.
            self.is_broken = True
            raise DatabaseRefused(
                f"{self._login.place} answers in a way that is not PostgreSQL's"
                f" ({type(error).__name__} at {doing}); check host and port"
            ) from None
        except BaseException:
            # Interrupted, perhaps in the middle of a message.
            self.is_broken = True
            raise

    def _answered(self, error: DatabaseError) -> Exception:
        fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        state = str(fields.get("C", ""))
        said = f"{self._login.place}: {str(fields.get('M', error))[:SHOWN]} ({state})"
        place = {"user": self._login.user, "database": self._login.database}
        is_over = fields.get("V", fields.get("S")) in ENDING or state == failures.READ_ONLY
        self.is_broken |= is_over
        match failures.meaning(state):
            case "again":
                return Conflict(said)
            case "away":
                busy = DatabaseBusy(said, retry_after_s=RETRY_AFTER_S)
                return Lost(_away(said), late=False) if is_over else busy
        return DatabaseRefused(said + failures.advice(state, place))

    def _unanswered(self, error: Exception) -> Exception:
        cause = error.__cause__ or error
        reason = _reason(cause if isinstance(cause, OSError) else error)
        if isinstance(cause, OSError) and is_refusal(cause):
            return DatabaseRefused(f"{self._login.place}: TLS failed: {reason}")
        if isinstance(cause, OSError) or "network error" in str(error):
            late = isinstance(cause, TimeoutError)
            return Lost(_away(f"{self._login.place} does not answer: {reason}"), late=late)
        return DatabaseRefused(f"{self._login.place}: {reason}")


def _away(message: str) -> DatabaseAway:
    return DatabaseAway(message, retry_after_s=RETRY_AFTER_S)


def _reason(error: Exception) -> str:
    found = error.strerror if isinstance(error, OSError) else None
    return str(found or error or type(error).__name__)[:SHOWN]


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines in pieces of about PIECE bytes: each of them is a message, and a write to the socket."""
    found: list[bytes] = []
    size = 0
    for line in lines:
        found.append(line.encode())
        size += len(found[-1])
        if size >= PIECE:
            yield b"".join(found)
            found.clear()
            size = 0
    if found:
        yield b"".join(found)
