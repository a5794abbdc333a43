"""What one request has had computed: engines add to it, and whoever answers the request reads it.

It travels in the context that a request's tasks share, so that no call between them hands it on.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """texts, tokens: taken to be computed, special tokens included; what was remembered costs none."""

    texts: int = 0
    tokens: int = 0


# None where nobody wants to know.
CURRENT: ContextVar[Usage | None] = ContextVar("usage", default=None)


def add(texts: int, tokens: int) -> None:
    usage = CURRENT.get()
    if usage is not None:
        usage.texts += texts
        usage.tokens += tokens
