"""Per-request counts of what was computed, for quotas and the audit.

Engines add to them. They travel in the context that the tasks of a request share, so no call passes them on.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """The counts of one request.

    texts, tokens: accepted for computing, special tokens included; cached vectors count nothing.
    """

    texts: int = 0
    tokens: int = 0


# None where the request is not counted.
CURRENT: ContextVar[Usage | None] = ContextVar("usage", default=None)


def add(texts: int, tokens: int) -> None:
    """Add to the counts of the current request."""
    usage = CURRENT.get()
    if usage is not None:
        usage.texts += texts
        usage.tokens += tokens
