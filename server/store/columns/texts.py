"""Many texts in little memory: their bytes one behind the other."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, islice

import numpy as np
import numpy.typing as npt

from server.store.sqlite.read_limit import within_limit

# Ends a text; no text in UTF-8 has this byte.
END = b"\xff"
# Places of a needle between two looks at the limit of a read.
AT_ONCE = 4096

Table = npt.NDArray[np.bool_]


class Texts:
    """Texts in the order of their code points, each once; a text takes its bytes and nine more.

    UTF-8 has the order of code points. So bytes are compared, and no text is decoded.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        parts = [text.encode() for text in texts]
        self._bytes = END.join([*parts, b""])
        self._begins = np.fromiter(
            accumulate((len(part) + 1 for part in parts), initial=0), np.int64, len(parts) + 1
        )

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, place: int) -> str:
        return self._at(place).decode()

    @property
    def bytes_held(self) -> int:
        return len(self._bytes) + self._begins.nbytes

    def before(self, text: str) -> int:
        """Return how many texts come before this one."""
        return bisect_left(range(len(self)), text.encode(), key=self._at)

    def until(self, text: str) -> int:
        """Return how many texts come before this one or equal it."""
        return bisect_right(range(len(self)), text.encode(), key=self._at)

    def beginning_with(self, prefix: str) -> tuple[int, int]:
        """Return the places, half open, of the texts that begin like this."""
        # subtle: no text has the byte END inside, so this comes behind all that begin so.
        end = bisect_left(range(len(self)), prefix.encode() + END, key=self._at)
        return self.before(prefix), end

    def having(self, part: str, most: int) -> Table:
        """Return which texts have this part among their first `most` characters: bool (N,).

        part: not empty.
        """
        found = np.zeros(len(self), dtype=np.bool_)
        # One match for each text: the part, and everything to the text's end.
        pattern = re.compile(re.escape(part.encode()) + b"[^\xff]*")
        matches = pattern.finditer(self._bytes)
        while True:
            some = [match.start() for match in islice(matches, AT_ONCE)]
            places = np.searchsorted(self._begins, some, side="right") - 1
            for place in self._long(places, most):
                found[place] = part in self[place][:most]
            found[places[self._sizes(places) <= most]] = True
            if len(some) < AT_ONCE:
                return found

    def _long(self, places: npt.NDArray[np.int64], most: int) -> list[int]:
        """Return the places of texts that may have more characters than `most`."""
        return list(within_limit(places[self._sizes(places) > most].tolist()))

    def _sizes(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self._begins[places + 1] - self._begins[places] - 1

    def _at(self, place: int) -> bytes:
        return self._bytes[self._begins[place] : self._begins[place + 1] - 1]
