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
CLOSED = "closed channel"
OWN = "Unexpected error"
RETRY_AFTER_S = 5
# Characters of what the client says.
SHOWN = 300


def failure(error: Exception, address: Address) -> DatabaseAway | DatabaseRefused:
    """Return the error that stands for one of the client, with what it said but no secret."""
    said = _said(error)
    text = address.redacted(said)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    if _is_away(error, said, address):
        return DatabaseAway(
            f"Milvus at {address.target} does not answer: {text}", retry_after_s=RETRY_AFTER_S
        )
    return DatabaseRefused(f"Milvus at {address.target} refuses: {text}")


def _is_away(error: Exception, said: str, address: Address) -> bool:
    code = _code(error)
    if isinstance(error, ConnectionError | TimeoutError) or CLOSED in said:
        return True
    if isinstance(code, str):
        return code in AWAY
    if getattr(error, "retriable", False) or code in AWAY_CODES:
        return True
    return code == UNFORESEEN and not address.is_local and not said.startswith(OWN)


def _code(error: Exception) -> str | int | None:
    """Return the name of gRPC's code, or the number of Milvus's."""
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    name = getattr(code, "name", None)
    # subtle: codes of the client are an enum of integers, which have names too.
    return name if isinstance(name, str) and not isinstance(code, int) else code


def _said(error: Exception) -> str:
    details = getattr(error, "details", None)
    said = details() if callable(details) else getattr(error, "message", None)
    return " ".join(str(said or error or type(error).__name__).split())
