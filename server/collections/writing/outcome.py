"""The outcome of a write, as a reply says it."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """number: documents that were stored, changed or removed.

    queued: whether they are safe here but wait for the vector database; always False without one.
    """

    number: int
    queued: bool = False

    def and_then(self, other: "Outcome") -> "Outcome":
        """Return the outcome of two writes of one request."""
        return Outcome(self.number + other.number, self.queued or other.queued)
