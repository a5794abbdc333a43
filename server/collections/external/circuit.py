"""Whether a database that did not answer is asked again; without clocks or threads.

After a call that failed no other is made for a moment, twice as long each time. So requests are refused at once
instead of waiting for the time-out of a database that hangs, and the first call that succeeds ends that.
"""

from dataclasses import dataclass

FIRST_S, LONGEST_S = 1.0, 30.0


@dataclass(slots=True)
class Circuit:
    """failures: in a row. closed_until: no call before this time. reason: what the last failure said."""

    failures: int = 0
    closed_until: float = 0.0
    reason: str = ""

    @property
    def is_away(self) -> bool:
        """Whether the last call failed."""
        return self.failures > 0

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next call may be made; 0 for now."""
        return max(self.closed_until - now, 0.0) if self.is_away else 0.0

    def failed(self, now: float, reason: str) -> None:
        """Called when the database did not answer. Calls that were made together count once."""
        if now >= self.closed_until:
            self.failures += 1
            self.closed_until = now + min(FIRST_S * 2 ** min(self.failures - 1, 10), LONGEST_S)
        self.reason = reason

    def answered(self) -> None:
        """Called when the database answered, with a refusal too."""
        self.failures, self.closed_until, self.reason = 0, 0.0, ""
