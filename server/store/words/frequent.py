"""Terms that so many chunks have that no query counts them again.

Counting a term reads the list of its chunks: of the usual query among a million texts that takes two thirds of
the time (2026-11-30). But of a term that more than COUNTED chunks have, and that stands beside a rarer one,
nothing else matters. So its count is kept, and holds while too few chunks were removed to make it rarer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from server.store.sqlite.database import Database
from server.store.words import ranking
from server.store.words.asked import Asked
from server.store.words.units import is_single

# Terms that are kept, and how many times COUNTED their chunks must be: so that some may be removed.
MOST_TERMS, MARGIN = 8_192, 1.1


class Size(NamedTuple):
    """A moment of a collection: how many chunks it has, and the last label that it gave."""

    chunks: int
    last_label: int


class FrequentTerms:
    """The frequent terms that were counted in one collection; any thread may use it."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, Size]] = {}

    def counted(
        self, database: Database, asked: Asked, now: Size, *, is_exact: bool = False
    ) -> dict[str, int]:
        """Return how many chunks have each term.

        Of frequent ones beside rarer ones it may be at least how many, unless is_exact.
        """
        # Of these all counts matter.
        is_exact = is_exact or bool(asked.phrases or asked.exact or asked.required)
        known = self._known(asked.lookups, now, is_exact=is_exact)
        counts = _counts(database, [term for term in asked.lookups if term not in known])
        if not is_exact and not any(0 < count <= ranking.COUNTED for count in counts.values()):
            # The rarest of the frequent ones decides.
            exact = self._known(known, now, is_exact=True)
            counts |= _counts(database, [term for term in known if term not in exact])
            known = exact
        self._keep(counts, now)
        return counts | known

    def _known(self, terms: Iterable[str], now: Size, *, is_exact: bool = False) -> dict[str, int]:
        """Return the terms that are still frequent, with a number of chunks that have each, at least.

        is_exact: only those of which it is the number.
        """
        found = {}
        for term in terms:
            seen = self._seen.get(term)
            if seen is None:
                continue
            count, then = seen
            added = now.last_label - then.last_label
            if added < 0 or (is_exact and then != now):
                continue
            least = count - max(0, then.chunks + added - now.chunks)
            if least > ranking.COUNTED:
                found[term] = least
        return found

    def _keep(self, counts: Mapping[str, int], now: Size) -> None:
        """Remember those of these terms that are frequent."""
        for term, count in counts.items():
            # subtle: of a character, one chunk may count several times, and phrases are not counted to the end.
            if count > MARGIN * ranking.COUNTED and " " not in term and not is_single(term):
                if len(self._seen) >= MOST_TERMS:
                    self._seen = {}
                self._seen[term] = count, now


def _counts(database: Database, terms: Sequence[str]) -> dict[str, int]:
    return dict(database.rows(*ranking.frequencies(terms))) if terms else {}
