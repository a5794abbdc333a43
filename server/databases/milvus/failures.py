"""Tells from an error of the client whether Milvus is away or has refused, without the client's own types."""

from server.databases.address import Address
from server.errors import DatabaseAway, DatabaseRefused

# Codes of gRPC with which the same call may succeed later. An answer that is larger than a limit is not among them.
AWAY = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "UNKNOWN", "INTERNAL"}
# Codes of Milvus for the same: not ready, unavailable, memory used up, disk full, rate, quota, not loaded, not all
# loaded. Newer servers also say of each error whether trying again may help.
AWAY_CODES = {2, 3, 7, 8, 9, 101, 102}
# For servers "not ready"; of milvus-lite, and in errors that the client itself makes, anything unforeseen.
UNFORESEEN = 1
OF_SERVER = "MilvusException"
CLOSED = "closed channel"
# Of a folder that another process has, or another database of this one.
HELD = "DataDirLockedError"
OWN = "Unexpected error"
RETRY_AFTER_S = 5
# Characters of what the client says.
SHOWN = 300


def failure(error: Exception, address: Address) -> DatabaseAway | DatabaseRefused:
    """Return the error that stands for one of the client, with what it said but no secret."""
    # The client names a failure to connect; what gRPC said of it is its cause.
    cause = error.__cause__
    origin = (
        cause if isinstance(cause, Exception) and callable(getattr(cause, "code", 0)) else error
    )
    said = _said(origin)
    shown = address.redacted(said)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    if _is_away(origin, said, address):
        return DatabaseAway(
            f"Milvus at {address.target} does not answer: {shown}", retry_after_s=RETRY_AFTER_S
        )
    return DatabaseRefused(f"Milvus at {address.target} refuses this: {shown}")


def _is_away(error: Exception, said: str, address: Address) -> bool:
    if isinstance(error, ConnectionError | TimeoutError) or CLOSED in said:
        return True
    if type(error).__name__ == HELD:
        return True
    code = _code(error)
    if isinstance(code, str):
        return code in AWAY
    if getattr(error, "retriable", False) or code in AWAY_CODES:
        return True
    of_server = type(error).__name__ == OF_SERVER and not said.startswith(OWN)
    return code == UNFORESEEN and of_server and not address.is_local


def _code(error: Exception) -> str | int | None:
    """Return the name of gRPC's code, or the number of Milvus's."""
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    if isinstance(code, int):
        return int(code)
    name = getattr(code, "name", None)
    return name if isinstance(name, str) else None


def _said(error: Exception) -> str:
    details = getattr(error, "details", None)
    said = details() if callable(details) else getattr(error, "message", None)
    return " ".join(str(said or error or type(error).__name__).split())
